package natskv

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

func (o *options) streamName() string { return "OWTPKV_" + o.bucket }

// subjects is what the subjects of the records begin with.
func (o *options) subjects() string { return "owtp.kv." + o.bucket + "." }

// config is a stream that keeps one message for each subject until it expires, and
// refuses what has no room instead of dropping something else.
func (o *options) config() jetstream.StreamConfig {
	c := jetstream.StreamConfig{
		Name: o.streamName(), Subjects: []string{o.subjects() + "*"}, Description: "OWTP session store",
		Retention: jetstream.LimitsPolicy, Discard: jetstream.DiscardNew, Storage: jetstream.FileStorage,
		MaxMsgsPerSubject: 1, AllowMsgTTL: true, DenyDelete: false, Replicas: o.replicas,
	}
	if o.maxRecords > 0 {
		c.MaxMsgs = o.maxRecords
	}
	if o.maxBytes > 0 {
		c.MaxBytes = o.maxBytes
	}
	return c
}

// ensure makes the stream, or finds it. Any number of replicas may do so at one
// time. How it is replicated, and how much it takes, is then its maker's word.
func (o *options) ensure(ctx context.Context, js jetstream.JetStream) (jetstream.Stream, error) {
	want := o.config()
	s, err := js.Stream(ctx, want.Name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		s, err = js.CreateStream(ctx, want)
		var refused *jetstream.APIError
		for i := 0; i < 10 && errors.As(err, &refused); i++ {
			// Perhaps because another replica is making it: the server has various
			// words for that, and may not show it yet.
			time.Sleep(20 * time.Millisecond)
			if again, err2 := js.Stream(ctx, want.Name); err2 == nil {
				s, err = again, nil
			}
		}
	}
	if err != nil {
		return nil, err
	}
	return s, agree(s.CachedInfo().Config, want)
}

// agree refuses a stream that would forget records, or not expire them.
func agree(is, want jetstream.StreamConfig) error {
	var wrong string
	switch {
	case !slices.Equal(is.Subjects, want.Subjects):
		wrong = fmt.Sprintf("has the subjects %q, not %q", is.Subjects, want.Subjects)
	case is.Retention != want.Retention:
		wrong = fmt.Sprintf("has the retention %v, not %v", is.Retention, want.Retention)
	case is.MaxMsgsPerSubject != 1:
		wrong = fmt.Sprintf("keeps %d messages for each subject, not 1", is.MaxMsgsPerSubject)
	case is.MaxAge != 0:
		wrong = fmt.Sprintf("forgets everything after %v", is.MaxAge)
	case is.Discard != want.Discard:
		wrong = "drops old records when it is full; it must discard new ones"
	case is.Storage != want.Storage:
		wrong = "is in the server's memory only"
	case !is.AllowMsgTTL:
		wrong = "does not let each message have its time to live (allow_msg_ttl)"
	case is.AllowDirect || is.MirrorDirect:
		wrong = "may be read from servers that are behind (allow_direct)"
	default:
		return nil
	}
	return fmt.Errorf("the stream %s %s; delete it, or name another bucket", want.Name, wrong)
}
