package main

import (
	"strings"

	"github.com/spf13/cobra"
)

// served are the methods of owtp serve. A peer does not tell strangers what
// it serves, so these are all that can be suggested.
var served = []cobra.Completion{
	cobra.CompletionWithDesc("echo", "returns its parameters (owtp serve)"),
	cobra.CompletionWithDesc("time", "tells the time (owtp serve)"),
	cobra.CompletionWithDesc("getInfo", "says hello (owtp serve)"),
}

func completeAddress(known *string) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, prefix string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return addresses(*known, prefix), cobra.ShellCompDirectiveNoFileComp
	}
}

func completeCall(known *string) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, prefix string) ([]cobra.Completion, cobra.ShellCompDirective) {
		switch len(args) {
		case 0:
			return addresses(*known, prefix), cobra.ShellCompDirectiveNoFileComp
		case 1:
			return served, cobra.ShellCompDirectiveNoFileComp
		}
		return nil, cobra.ShellCompDirectiveDefault
	}
}

// addresses suggests what is pinned, and the default addresses of owtp serve.
// A file that cannot be read suggests nothing: completion is no place for errors.
func addresses(flag, prefix string) []cobra.Completion {
	all := []cobra.Completion{"http://" + defaultHTTP, "ws://" + defaultWebSocket, "nats://" + defaultBroker}
	if known, err := knownFile(flag); err == nil {
		peers, _ := known.list()
		for _, p := range peers {
			all = append(all, cobra.CompletionWithDesc(p.address, strings.TrimSpace(p.id.String()+" "+p.comment)))
		}
	}
	var fitting []cobra.Completion
	for _, a := range all {
		if strings.HasPrefix(a, prefix) {
			fitting = append(fitting, a)
		}
	}
	return fitting
}

func completeIDs(flag *string) cobra.CompletionFunc {
	return func(_ *cobra.Command, _ []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		var ids []cobra.Completion
		if known, err := knownFile(*flag); err == nil {
			peers, _ := known.list()
			for _, p := range peers {
				ids = append(ids, cobra.CompletionWithDesc(p.id.String(), p.address))
			}
		}
		return ids, cobra.ShellCompDirectiveNoFileComp
	}
}
