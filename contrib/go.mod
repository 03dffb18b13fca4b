module github.com/owtp-go/owtp/contrib

go 1.26.0

require github.com/owtp-go/owtp v0.0.0

// Until there are releases, the library is the one in this repository.
replace github.com/owtp-go/owtp => ..
