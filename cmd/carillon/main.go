// Command carillon is the Carillon event gateway and its tools, in one program.
//
// Results go to standard output, everything else to standard error. An error
// begins with "carillon:", says what to do about it where that is known, and
// ends the program with 1; a command line that cannot be read ends it with 2.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"
)

// CLI is the command line.
type CLI struct {
	Dev     DevCmd     `cmd:"" help:"Try it: a node with keys, and a page of live events."`
	Serve   ServeCmd   `cmd:"" help:"Run a node with your settings."`
	Drain   DrainCmd   `cmd:"" help:"Have a node send its clients away and end."`
	Publish PublishCmd `cmd:"" help:"Publish an event, or one for every line of NDJSON."`
	Tail    TailCmd    `cmd:"" help:"Print events as they come."`
	Hooks   HooksCmd   `cmd:"" help:"Webhooks that come in: list, retry and test them, and their sources."`
	Listen  ListenCmd  `cmd:"" help:"Forward webhooks to a server on this machine, as they came."`
	Token   TokenCmd   `cmd:"" help:"Print a token for a client, signed with an issuer's secret."`
	Keys    KeysCmd    `cmd:"" help:"Make API keys for servers."`
	Config  ConfigCmd  `cmd:"" help:"Check, print or explain settings."`
	Engine  EngineCmd  `cmd:"" help:"Move the log: export it, import it elsewhere."`
	Bench   BenchCmd   `cmd:"" help:"Measure a server, with every message checked."`
	Version VersionCmd `cmd:"" help:"Print the version."`
}

const description = "Carillon is a real-time event gateway: publish an event once, and everyone who may see it gets it."

func main() {
	// The first signal asks the command to end; a second one ends the program at
	// once, as it would without us.
	ctx, release := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, release)
	os.Exit(run(ctx, os.Args[1:], &IO{Out: os.Stdout, Err: os.Stderr, In: os.Stdin}))
}

// The program's exit codes.
const (
	exitOK    = 0
	exitError = 1
	exitUsage = 2
)

// exit is how kong's own help and version end a command line.
type exit int

// run runs one command line and returns its exit code.
func run(ctx context.Context, args []string, std *IO) (code int) {
	defer func() {
		switch r := recover().(type) {
		case nil:
		case exit:
			code = int(r)
		default:
			panic(r)
		}
	}()
	var cli CLI
	parser, err := kong.New(&cli,
		kong.Name("carillon"), kong.Description(description),
		kong.Writers(std.Out, std.Err), kong.Exit(func(code int) { panic(exit(code)) }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, NoExpandSubcommands: true, WrapUpperBound: 100}),
		kong.WithHyphenPrefixedParameters(true), // --since -10m
		kong.BindTo(ctx, (*context.Context)(nil)), kong.Bind(std),
	)
	if err != nil {
		return fail(std, err)
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	command, err := parser.Parse(args)
	if err != nil {
		usage(std, err)
		return exitUsage
	}
	if err := command.Run(); err != nil {
		return fail(std, err)
	}
	return exitOK
}

// fail says what went wrong, and what would help.
func fail(std *IO, err error) int {
	fmt.Fprintf(std.Err, "carillon: %s\n", strings.ReplaceAll(err.Error(), "\n", "\n  "))
	var h *hinted
	if errors.As(err, &h) {
		fmt.Fprintf(std.Err, "carillon: hint: %s\n", h.hint)
	}
	return exitError
}

// hinted is an error with what would help.
type hinted struct {
	error

	hint string
}

func (h *hinted) Unwrap() error { return h.error }

func hint(err error, format string, args ...any) error {
	return &hinted{err, fmt.Sprintf(format, args...)}
}

// usage says what could not be read, and where the help is.
func usage(std *IO, err error) {
	help := "carillon --help"
	text := err.Error()
	var parse *kong.ParseError
	if errors.As(err, &parse) && parse.Context != nil {
		if c := parse.Context.Command(); c != "" {
			words := strings.Fields(c)
			for i, w := range words {
				if strings.HasPrefix(w, "<") || strings.HasPrefix(w, "[") {
					words = words[:i]
					break
				}
			}
			help = strings.TrimSpace("carillon "+strings.Join(words, " ")) + " --help"
		}
	}
	if list, ok := strings.CutPrefix(text, "expected one of "); ok {
		text = "a command is missing; it is one of " + strings.ReplaceAll(list, `"`, "")
	} else if rest, ok := strings.CutPrefix(text, "expected "); ok {
		rest = strings.Trim(rest, `"`)
		if strings.HasPrefix(rest, "<") {
			text = rest + " is missing"
		} else {
			text = "a command is missing; the only one is " + rest
		}
	}
	text = strings.Replace(text, "expected a valid 64 bit int but got", "it is a whole number, not", 1)
	text = strings.Replace(text, "expected a float but got", "it is a number, not", 1)
	fmt.Fprintf(std.Err, "carillon: %s\ncarillon: hint: %s says what there is\n", text, help)
}
