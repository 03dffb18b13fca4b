package httpt

import (
	"mime"
	"net/http"

	"github.com/owtp-go/owtp/internal/httpguard"
	"github.com/owtp-go/owtp/transport"
)

// Nodes of protocol version 1 answer everything with status 200. What is no
// packet is a line of text, or nothing at all.

// legacyRefusal makes an error of a complaint.
func legacyRefusal(resp *http.Response) *transport.Refusal {
	switch media := mediaType(resp.Header); {
	case media == typeLegacyText:
		return httpguard.ReadRefusal(http.StatusBadRequest, resp.Body)
	case resp.ContentLength == 0:
		return &transport.Refusal{Status: http.StatusBadRequest, Reason: emptyLegacyReply}
	}
	return nil
}

// mediaType is that of the one Content-Type, or "".
func mediaType(h http.Header) string {
	if values := h["Content-Type"]; len(values) == 1 {
		media, _, _ := mime.ParseMediaType(values[0])
		return media
	}
	return ""
}
