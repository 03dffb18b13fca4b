package broker

import (
	"fmt"
	"log/slog"
	"sync"
)

// logger passes on what the server says, and keeps why it could not start: it
// says that nowhere else. It implements the server's Logger.
type logger struct {
	to *slog.Logger // may be nil

	mu  sync.Mutex
	why error
}

func (l *logger) say(level func(*slog.Logger) func(string, ...any), format string, v []any) {
	if l.to != nil {
		level(l.to)("owtp: NATS server: " + fmt.Sprintf(format, v...))
	}
}

func (l *logger) Noticef(format string, v ...any) {
	l.say(func(s *slog.Logger) func(string, ...any) { return s.Info }, format, v)
}

func (l *logger) Warnf(format string, v ...any) {
	l.say(func(s *slog.Logger) func(string, ...any) { return s.Warn }, format, v)
}

func (l *logger) Errorf(format string, v ...any) {
	l.say(func(s *slog.Logger) func(string, ...any) { return s.Error }, format, v)
}

func (l *logger) Fatalf(format string, v ...any) {
	l.mu.Lock()
	if l.why == nil {
		l.why = fmt.Errorf("broker: "+format, v...)
	}
	l.mu.Unlock()
	l.Errorf(format, v...)
}

// Debugf and Tracef are never called: both are switched off, since a trace would
// have messages in it.
func (l *logger) Debugf(string, ...any) {}
func (l *logger) Tracef(string, ...any) {}

func (l *logger) fatal() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.why
}
