package nats

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// consumerName is the one consumer of a stream. All replicas share it.
	consumerName = "owtp"

	// ackWait is how long the work of a replica that was killed lies before
	// another one gets it. A replica that lives says so three times as often.
	ackWait = 12 * time.Second

	// gatherTime parts replicas that begin at one moment. A server of version 2.9
	// for which several make a consumer at once may lose its first delivery, which
	// then comes after ackWait.
	gatherTime = 100 * time.Millisecond

	// deadMessages and deadAge bound what could not be handled, of each queue. The
	// oldest goes first. There is no bound in octets, since a server sets so much
	// aside as soon as the stream is made.
	deadMessages = 100
	deadAge      = 7 * 24 * time.Hour
)

// streamName is the stream of a shared queue. A name of a stream has no dots.
func streamName(prefix, queue string) string {
	b := []byte(prefix)
	for _, c := range []byte(queue) {
		switch {
		case c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z' || c == '-':
			b = append(b, c)
		case c == '.':
			b = append(b, '_')
		default:
			b = fmt.Appendf(b, "=%02x", c)
		}
	}
	return string(b)
}

// A store is where the requests to a durable queue lie.
type store struct {
	queue, subject, stream  string
	deadSubject, deadStream string
	maxMessages             int
	maxAge                  time.Duration

	// Up to this sequence number messages may have been delivered before, whatever
	// the server says: one that has crashed or lost its power has forgotten the
	// last of what it had handed out, and hands it out again without a mark.
	// Nobody can know that of a server that was there before this connection.
	horizon atomic.Uint64
}

func (e *endpoint) newStore() *store {
	q := e.queues.Shared
	return &store{
		queue: q, subject: durablePrefix + q, stream: streamName("OWTP_", q),
		deadSubject: deadPrefix + q, deadStream: streamName("OWTPDEAD_", q),
		maxMessages: e.cfg.MaxQueueLength, maxAge: e.cfg.MaxQueueTime,
	}
}

// requests is the stream that keeps the requests: each until it is done, so many,
// for so long. What finds no room is refused.
func (st *store) requests() jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name: st.stream, Subjects: []string{st.subject}, Description: "OWTP requests to " + st.queue,
		Retention: jetstream.WorkQueuePolicy, Discard: jetstream.DiscardNew, Storage: jetstream.FileStorage,
		MaxMsgs: int64(st.maxMessages), MaxAge: st.maxAge,
		Duplicates: min(st.maxAge, time.Minute), // not used; it may not be longer than MaxAge
	}
}

func (st *store) dead() jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name: st.deadStream, Subjects: []string{st.deadSubject}, Description: "OWTP requests to " + st.queue + " that could not be handled",
		Retention: jetstream.LimitsPolicy, Discard: jetstream.DiscardOld, Storage: jetstream.FileStorage,
		MaxMsgs: deadMessages, MaxAge: deadAge,
	}
}

func (st *store) consumer() jetstream.ConsumerConfig {
	return jetstream.ConsumerConfig{
		Durable: consumerName, FilterSubject: st.subject, AckPolicy: jetstream.AckExplicitPolicy, AckWait: ackWait,
		MaxDeliver:    -1, // a replica counts: the server would leave the message where it is, in the way of others
		MaxAckPending: -1, // each replica asks for what it can handle, and nobody knows how many replicas there are
	}
}

// ensure makes the streams and the consumer, or agrees with those that are there.
// Any number of replicas may do so at one time.
func (st *store) ensure(ctx context.Context, s *session) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s.asking.Store(&cancel)
	defer s.asking.Store(nil)
	last, err := st.make(ctx, s.js)
	if err != nil && ctx.Err() != nil && context.Cause(ctx) != nil {
		err = context.Cause(ctx) // no permission: the server does not answer the request
	}
	switch {
	case err == nil:
		st.horizon.Store(last)
		return nil
	case errors.Is(err, natsgo.ErrNoResponders), errors.Is(err, jetstream.ErrJetStreamNotEnabled), errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount):
		return fmt.Errorf("owtp: the NATS server keeps no streams for this account (JetStream is off), and the address says durable=true: %w", err)
	}
	return fmt.Errorf("owtp: the stream %s for the queue %s: %w", st.stream, st.queue, err)
}

// make returns the sequence number of the last message that was there before.
func (st *store) make(ctx context.Context, js jetstream.JetStream) (last uint64, err error) {
	if _, err := ensureStream(ctx, js, st.dead()); err != nil {
		return 0, err
	}
	stream, err := ensureStream(ctx, js, st.requests())
	if err != nil {
		return 0, err
	}
	c, err := stream.Consumer(ctx, consumerName)
	if errors.Is(err, jetstream.ErrConsumerNotFound) && pause(ctx, rand.N(gatherTime)) {
		if c, err = stream.Consumer(ctx, consumerName); errors.Is(err, jetstream.ErrConsumerNotFound) {
			c, err = stream.CreateConsumer(ctx, st.consumer())
		}
	}
	if err != nil {
		return 0, fmt.Errorf("its consumer: %w", err)
	}
	return stream.CachedInfo().State.LastSeq, agreeConsumer(c.CachedInfo().Config, st.consumer())
}

// ensureStream looks before it makes: an account that may not make streams can
// use those that its operator has made.
func ensureStream(ctx context.Context, js jetstream.JetStream, want jetstream.StreamConfig) (jetstream.Stream, error) {
	stream, err := js.Stream(ctx, want.Name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		stream, err = js.CreateStream(ctx, want)
	}
	// Where several replicas make it at one time the server has various words for
	// that, and may not show it yet.
	for range 10 {
		var refused *jetstream.APIError
		if !errors.As(err, &refused) || !pause(ctx, 50*time.Millisecond) {
			break
		}
		if again, err2 := js.Stream(ctx, want.Name); err2 == nil {
			stream, err = again, nil
		}
	}
	if err != nil {
		return nil, err
	}
	return stream, agreeStream(stream.CachedInfo().Config, want)
}

// pause reports whether ctx has not ended meanwhile.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// agreeStream compares what decides whether a message is kept. Replication,
// placement and further bounds are the operator's.
func agreeStream(is, want jetstream.StreamConfig) error {
	name := want.Name
	differ := func(what string, is, want any) error {
		return fmt.Errorf("the stream %s exists with %s %v, and this node needs %v: give all replicas the same limits, or delete the stream",
			name, what, is, want)
	}
	switch {
	case !slices.Equal(is.Subjects, want.Subjects):
		return differ("subjects", is.Subjects, want.Subjects)
	case is.Retention != want.Retention:
		return differ("retention", is.Retention, want.Retention)
	case is.Discard != want.Discard:
		return differ("discard policy", is.Discard, want.Discard)
	case is.Storage != want.Storage:
		return differ("storage", is.Storage, want.Storage)
	case is.MaxMsgs != want.MaxMsgs:
		return differ("a limit of messages of", is.MaxMsgs, want.MaxMsgs)
	case is.MaxAge != want.MaxAge:
		return differ("an age of at most", is.MaxAge, want.MaxAge)
	}
	return nil
}

func agreeConsumer(is, want jetstream.ConsumerConfig) error {
	if is.AckPolicy != want.AckPolicy || is.AckWait != want.AckWait || is.FilterSubject != want.FilterSubject || is.DeliverSubject != "" {
		return fmt.Errorf("its consumer %s exists with other settings (acknowledgement %v after %v, subject %q); delete it", consumerName, is.AckPolicy, is.AckWait, is.FilterSubject)
	}
	return nil
}
