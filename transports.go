package owtp

import (
	"fmt"

	"github.com/owtp-go/owtp/internal/httpt"
	"github.com/owtp-go/owtp/internal/memt"
	"github.com/owtp-go/owtp/internal/wst"
	"github.com/owtp-go/owtp/transport"
)

// transports are the ways to connect that come with the node.
var transports = map[string]transport.Transport{
	HTTP:      httpt.New(),
	Websocket: wst.New(),
	Memory:    memt.New(),
}

func transportFor(connectType string) (transport.Transport, error) {
	if t, ok := transports[connectType]; ok {
		return t, nil
	}
	return nil, fmt.Errorf("owtp: unknown connect type %.40q; known are %q, %q and %q", connectType, HTTP, Websocket, Memory)
}
