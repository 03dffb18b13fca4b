package sqlstore

import (
	"fmt"

	"github.com/owtp-go/owtp/session"
)

// CheckTable returns an error for a name that is not 1 to 48 lower-case letters,
// digits and underscores, beginning with a letter: it stands in statements, and
// servers disagree about everything else.
func CheckTable(name string) error {
	if name == "" || len(name) > 48 || name[0] < 'a' || name[0] > 'z' {
		return errTable(name)
	}
	for _, c := range []byte(name) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' {
			return errTable(name)
		}
	}
	return nil
}

func errTable(name string) error {
	return fmt.Errorf("the table's name %.64q is not 1 to 48 lower-case letters, digits and underscores with a letter first", name)
}

// Format is the comment by which a table is known as one of these stores', with
// the version of its columns. A release that needs others makes a new number, so
// that an older one that runs beside it leaves the table alone.
const (
	Format       = formatPrefix + "1"
	formatPrefix = "owtp session store, format "
)

// CheckFormat returns an error for a table with another comment.
func CheckFormat(table, comment string) error {
	switch {
	case comment == Format:
		return nil
	case len(comment) > len(formatPrefix) && comment[:len(formatPrefix)] == formatPrefix:
		return fmt.Errorf("the table %q has format %.20q, and this program knows 1 only: run a newer one, or name another table", table, comment[len(formatPrefix):])
	}
	return fmt.Errorf("the table %q is not this store's: its comment is %.80q and not %q; name another table, or restore the comment", table, comment, Format)
}

// Guaranteed is what every one of these stores promises.
func Guaranteed(name string, maxValue int) session.Traits {
	return session.Traits{Name: name, Shared: true, Durable: true, Lists: true, MaxValue: min(maxValue, session.MaxValueLen)}
}
