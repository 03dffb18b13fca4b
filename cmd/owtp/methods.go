package main

import (
	"errors"
	"time"

	"github.com/owtp-go/owtp"
	"github.com/owtp-go/owtp/codec"
)

// handleServed binds the methods of owtp serve.
func handleServed(node *owtp.OWTPNode) error {
	return errors.Join(
		node.HandleFunc("echo", serveEcho, owtp.Repeatable()),
		node.HandleFunc("time", serveTime, owtp.Repeatable()),
		node.HandleFunc("getInfo", serveInfo, owtp.Repeatable()),
	)
}

func serveEcho(ctx *owtp.Context) {
	ctx.Response(codec.Raw{Format: ctx.DataFormat(), Data: ctx.Data()}, owtp.StatusSuccess, "success")
}

func serveTime(ctx *owtp.Context) {
	now := time.Now()
	ctx.Response(map[string]any{
		"time":       now.UTC().Format(time.RFC3339Nano),
		"unixMillis": now.UnixMilli(),
	}, owtp.StatusSuccess, "success")
}

// serveInfo is the first method that the project's documents show.
func serveInfo(ctx *owtp.Context) {
	// Nothing can be kept for a caller who has proved nothing; that is no
	// reason not to answer.
	_ = ctx.SetSession("username", "kkk")
	ctx.Resp = owtp.Response{
		Status: 0,
		Msg:    "success",
		Result: map[string]any{"getInfo": "hi boy"},
	}
}
