package main

import (
	"bytes"
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/owtp-go/owtp"
)

// everyPromise is what the demonstration must print. It stands here once more,
// so that a step that disappears is noticed.
var everyPromise = []text{
	textOpen, textSigned, textSealedAES, textSealedSM4,
	textOpen, textSigned, textSealedAES, textSealedSM4, textCallBack,
	textQueueOpen, textQueueSealed, textQueueCallBack, textQueueReplay, textQueueReplicas,
	textTamperThere, textTamperBack, textReplay, textImpostorHTTP, textImpostorWebSocket,
}

func TestDemoPrintsEveryPromise(t *testing.T) {
	for _, lang := range demoLanguages {
		var out, errs bytes.Buffer
		if code := run(t.Context(), []string{"demo", "--lang", lang}, &console{in: strings.NewReader(""), out: &out, err: &errs}); code != exitOK {
			t.Errorf("%s: exit code %d\n%s%s", lang, code, out.String(), errs.String())
		}
		rest := out.String()
		for _, promise := range everyPromise {
			line := "  ✓ " + promise.in(lang) + "\n"
			_, after, ok := strings.Cut(rest, line)
			if !ok {
				t.Errorf("%s: no line %q, or not in its place", lang, line)
				continue
			}
			rest = after
		}
		if got := strings.Count(out.String(), "✓"); got != len(everyPromise) || strings.Contains(out.String(), "✗") {
			t.Errorf("%s: %d marks for %d promises:\n%s", lang, got, len(everyPromise), out.String())
		}
	}
}

// TestDemoNoticesWhatIsBroken breaks what the demonstration leans on: each time
// it must say so. A demonstration that cannot fail shows nothing.
func TestDemoNoticesWhatIsBroken(t *testing.T) {
	for name, tc := range map[string]struct {
		spoil func(*demoStage)
		prove func(context.Context, *demoStage) error
		want  string
	}{
		"the impostor has the server's key": {
			func(s *demoStage) { s.impostor = s.server },
			func(ctx context.Context, s *demoStage) error { return s.proveImpostor(ctx, owtp.HTTP) },
			"connected to the impostor",
		},
		"the attacker changes nothing": {
			func(s *demoStage) { s.proxy = &tamperProxy{ln: s.proxy.ln, target: s.proxy.target} },
			func(ctx context.Context, s *demoStage) error { return s.proveTamper(ctx, true) },
			"the attacker changed nothing",
		},
		"the attacker records nothing": {
			func(s *demoStage) { s.proxy = &tamperProxy{ln: s.proxy.ln, target: s.proxy.target} },
			func(ctx context.Context, s *demoStage) error { return s.proveReplay(ctx) },
			"the attacker recorded nothing",
		},
		"the eavesdropper is deaf": {
			func(s *demoStage) { s.taps[owtp.Websocket] = &tap{ln: s.taps[owtp.Websocket].ln} },
			func(ctx context.Context, s *demoStage) error { return s.proveOpen(ctx, owtp.Websocket) },
			"heard nothing",
		},
		"the broker's owner is deaf": {
			func(s *demoStage) { s.queue.owner.Close() },
			func(ctx context.Context, s *demoStage) error {
				ctx, cancel := context.WithTimeout(ctx, time.Second)
				defer cancel()
				return s.proveQueueOpen(ctx)
			},
			"has not heard the call",
		},
		"sealed calls are not sealed": {
			func(*demoStage) {},
			func(ctx context.Context, s *demoStage) error {
				if err := s.connectQueue(ctx, "open", nil); err != nil {
					return nil
				}
				return s.listenIn(ctx, "open", false)
			},
			"read the call",
		},
		"a server runs copies": {
			func(*demoStage) {},
			func(ctx context.Context, s *demoStage) error {
				ctx, cancel := context.WithCancel(ctx)
				var running sync.WaitGroup
				running.Go(func() {
					for pause(ctx, time.Millisecond/10) {
						s.greeted.Add(1) // as if it did
					}
				})
				defer running.Wait()
				defer cancel()
				return s.proveQueueReplay(ctx)
			},
			"more times",
		},
		"there is one replica": {
			func(s *demoStage) { s.queue.replicas[1].Close() },
			func(ctx context.Context, s *demoStage) error { return s.proveQueueReplicas(ctx) },
			"got none of",
		},
		"the server is gone": {
			func(s *demoStage) { s.server.Close() },
			func(ctx context.Context, s *demoStage) error { return s.proveSigned(ctx, owtp.HTTP) },
			"",
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := newDemoStage()
			if err != nil {
				t.Fatal(err)
			}
			defer s.close()
			tc.spoil(s)
			if err := tc.prove(t.Context(), s); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}
