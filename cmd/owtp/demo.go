package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"
)

// demoTime bounds the whole demonstration. It needs a fraction of a second;
// the rest is for machines that do much else.
const demoTime = 30 * time.Second

var demoLanguages = []string{"en", "zh"}

func newDemoCommand(c *console) *cobra.Command {
	lang := "en"
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "See what the protocol does, and three attacks that fail",
		Long: `Starts two nodes in this process and lets them call each other over HTTP and
WebSocket: open, signed and sealed, and back from the server to the client. Then
it starts a message broker, for nodes that reach only that, whose owner listens
and repeats what was said. At last an attacker in the middle changes messages, replays a recorded one and
poses as the server. Everything stays on this machine and needs no settings.

It ends with code 0 only if everything was as promised.`,
		Example: `  owtp demo
  owtp demo --lang zh`,
		Args: arguments(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !slices.Contains(demoLanguages, lang) {
				return fmt.Errorf("--lang %.20q is unknown: known are en and zh", printable(lang))
			}
			return runDemo(cmd.Context(), c, lang)
		},
	}
	cmd.Flags().StringVar(&lang, "lang", lang, "language: en or zh")
	must(cmd.RegisterFlagCompletionFunc("lang", cobra.FixedCompletions([]cobra.Completion{
		cobra.CompletionWithDesc("en", "English"), cobra.CompletionWithDesc("zh", "中文"),
	}, cobra.ShellCompDirectiveNoFileComp)))
	return cmd
}

// A demoStep is one promise of the protocol and the proof of it. prove returns
// an error if the promise was not kept.
type demoStep struct {
	promise text
	prove   func(context.Context) error
}

// A demoPart is a group of steps with a heading.
type demoPart struct {
	title text
	steps []demoStep
}

func runDemo(ctx context.Context, c *console, lang string) error {
	ctx, cancel := context.WithTimeout(ctx, demoTime)
	defer cancel()
	start := time.Now()
	stage, err := newDemoStage()
	if err != nil {
		return fmt.Errorf("the demonstration cannot start: %w", err)
	}
	defer stage.close()
	say := func(t text, args ...any) { fmt.Fprintf(c.out, t.in(lang)+"\n", args...) }
	say(textIntro, stage.server.NodeID(), stage.client.NodeID())

	kept, broken := 0, 0
	for _, part := range stage.parts() {
		say(text{"\n%s", "\n%s"}, part.title.in(lang))
		for _, step := range part.steps {
			if err := step.prove(ctx); err != nil {
				broken++
				say(text{"  ✗ %s", "  ✗ %s"}, step.promise.in(lang))
				say(textBroken, printable(err.Error()))
				continue
			}
			kept++
			say(text{"  ✓ %s", "  ✓ %s"}, step.promise.in(lang))
		}
	}
	if broken > 0 {
		say(textSummaryBroken, broken, kept+broken)
		return &silentError{exitUsage}
	}
	say(textSummary, kept, time.Since(start).Round(time.Millisecond))
	return nil
}
