package secure

import "github.com/owtp-go/owtp/internal/atrest"

// Labels separate the purposes of signatures, MACs and derived keys
// (docs/PROTOCOL.md, appendix A). Each ends with a zero octet, so that none is
// the beginning of another, and version 1 signs exactly 32 octets, so that
// nothing signed here is ever a signing input of version 1.
const (
	labelProof     = "OWTP/2 proof\x00"
	labelInitiator = "OWTP/2 initiator\x00"
	labelResponder = "OWTP/2 responder\x00"
	labelPacket    = "OWTP/2 packet "
	labelDigest    = "OWTP/2 request digest\x00"
	labelCall      = "OWTP/2 call digest\x00"

	infoInitiatorMAC  = "OWTP/2 key initiator mac\x00"
	infoResponderMAC  = "OWTP/2 key responder mac\x00"
	infoToResponder   = "OWTP/2 key initiator to responder\x00"
	infoToInitiator   = "OWTP/2 key responder to initiator\x00"
	infoRecordKey     = "OWTP/2 record key\x00"
	infoRecordIV      = "OWTP/2 record iv\x00"
	infoMessage       = "OWTP/2 message\x00"
	infoStoreKey      = "OWTP/2 store key\x00"
	infoStoreRecord   = atrest.Label
	infoSessionTagKey = "OWTP/2 session tag\x00"
)
