package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/carillon-rt/carillon/internal/bench"
)

// figures are the command lines behind every figure we publish. Those that differ
// in one number only are the curves of the plot.
func figures() []string {
	return []string{
		// What a connection costs: growth with connections, and with orgs.
		"idle --connections 1000",
		"idle --connections 5000",
		"idle --connections 15000",
		"idle --connections 15000 --orgs 100",
		"idle --connections 15000 --orgs 1000",
		"idle --connections 1000 --transport sse",
		"idle --connections 5000 --transport sse",
		"idle --connections 15000 --transport sse",
		"idle --connections 1000 --transport poll",
		"idle --connections 5000 --transport poll",
		"idle --connections 15000 --transport poll",
		"idle --connections 15000 --fill-mb 80",
		"idle --connections 15000 --fill-mb 80 --transport sse",

		// One to many: growth with subscribers, with the rate, and with what arrives together.
		"fanout --subscribers 100 --rate 50",
		"fanout --subscribers 1000 --rate 50 --runs 3",
		"fanout --subscribers 1000 --rate 10",
		"fanout --subscribers 1000 --rate 100",
		"fanout --subscribers 1000 --rate 50 --transport sse",
		"fanout --subscribers 1000 --rate 10 --transport sse",
		"fanout --subscribers 1000 --rate 50 --transport poll",
		"fanout --subscribers 1000 --rate 10 --transport poll",
		"fanout --subscribers 1000 --rate 3",
		"fanout --subscribers 5000 --rate 3",
		"fanout --subscribers 10000 --rate 3",
		"fanout --subscribers 10000 --rate 3 --other-rate 200",
		"fanout --subscribers 1000 --rate 10 --batch 4",
		"fanout --subscribers 1000 --rate 10 --batch 16",
		"fanout --subscribers 1000 --rate 10 --batch 64",

		// One to one of many.
		"many --connections 10000 --rate 500 --durability relaxed",
		"many --connections 10000 --rate 2000 --durability relaxed",
		"many --connections 10000 --rate 5000 --durability relaxed",
		"many --connections 1000 --rate 5000 --durability relaxed",
		"many --connections 15000 --rate 5000 --durability relaxed",
		"many --connections 10000 --rate 5000 --durability relaxed --transport sse",

		// Those who do not read.
		"slow --slow 5",
		"slow --slow 5 --slow-rate 65536",
		"slow --slow 5 --transport sse",

		// Those who come back.
		"storm --clients 1000 --other-rate 500",
		"storm --clients 5000 --other-rate 500",
		"storm --clients 15000 --other-rate 500",
		"storm --clients 15000 --other-rate 500 --orgs 100",
		"storm --clients 15000 --other-rate 500 --orgs 1000",
		"storm --clients 15000 --other-rate 500 --transport sse",
		"storm --clients 15000 --other-rate 500 --transport poll",
		"resume --clients 1000 --missed 100 --other-rate 200",
		"resume --clients 1000 --missed 5000 --fill-mb 100 --other-rate 200",
		"resume --clients 15000 --missed 5000 --other-rate 200",

		// Durable publish.
		"publish --publishers 1",
		"publish --publishers 16",
		"publish --publishers 64",
		"publish --publishers 64 --durability relaxed",
		"publish --publishers 64 --orgs 8",
		"publish --publishers 64 --batch 100 --duration 5s --no-read-back",
		"publish --publishers 64 --batch 100 --orgs 8 --duration 5s --no-read-back",

		// Webhooks: as fast as they are taken, a burst, and the time that one takes.
		"hooks --senders 64",
		"hooks --senders 64 --deliveries 50000 --warmup 0s --no-floor",
		"hooks --senders 64 --rate 200",
	}
}

// BenchAllCmd is `carillon bench all`.
type BenchAllCmd struct {
	BenchServerFlags `embed:""`

	Out  string `default:"." type:"path" placeholder:"DIR" help:"Directory that gets figures.json and figures.svg (default: this one)."`
	Only string `placeholder:"TEXT" help:"Only command lines that contain this text, such as storm; what others gave before stays in figures.json."`
	List bool   `help:"Print the command lines instead of running them."`
}

// Run runs one after the other. What fails does not stop the rest.
func (c *BenchAllCmd) Run(ctx context.Context, std *IO) error {
	var lines [][]string
	for _, line := range figures() {
		if strings.Contains(line, c.Only) {
			lines = append(lines, slices.Concat([]string{"bench"}, strings.Fields(line), c.flags()))
		}
	}
	if len(lines) == 0 {
		return hint(fmt.Errorf("bench: no command line contains %q", c.Only), "--list prints them all")
	}
	if c.List {
		for _, line := range lines {
			fmt.Fprintln(std.Out, "carillon", strings.Join(line, " "))
		}
		return nil
	}
	file := filepath.Join(c.Out, "figures.json")
	var reports []*bench.Report
	if c.Only != "" {
		var err error
		if reports, err = readReports(file); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	var problems []error
	for i, line := range lines {
		name := "carillon " + strings.Join(line, " ")
		fmt.Fprintf(std.Err, "%d of %d: %s\n", i+1, len(lines), name)
		c, err := figure(line)
		if err != nil {
			return err
		}
		rep, err := measure(ctx, std, c)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", name, err))
			continue
		}
		rep.Command = name
		if err := rep.Checks.Err(); err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", name, err))
		}
		fmt.Fprintf(std.Out, "$ %s\n", name)
		if err := rep.WriteTable(std.Out); err != nil {
			return err
		}
		fmt.Fprintln(std.Out)
		// At once, so that nothing measured is lost.
		if reports, err = keep(file, reports, rep); err != nil {
			return err
		}
	}
	if err := plotInto(filepath.Join(c.Out, "figures.svg"), reports); !errors.Is(err, bench.ErrNothingToDraw) {
		problems = append(problems, err)
	}
	return errors.Join(problems...)
}

// flags are what every command line gets besides its own.
func (c *BenchAllCmd) flags() (args []string) {
	for _, f := range []struct{ name, value string }{{"--server-cpus", c.ServerCPUs}, {"--client-cpus", c.ClientCPUs}, {"--data", c.Data}} {
		if f.value != "" {
			args = append(args, f.name, f.value)
		}
	}
	if c.ServerProc != 0 {
		args = append(args, "--server-procs", strconv.Itoa(c.ServerProc))
	}
	return args
}

// figure is the scenario of a command line.
func figure(args []string) (benchScenario, error) {
	var cli struct {
		Bench BenchCmd `cmd:""`
	}
	parser, err := kong.New(&cli, kong.Name("carillon"))
	if err != nil {
		return nil, err
	}
	command, err := parser.Parse(args)
	if err != nil {
		return nil, err
	}
	c, ok := command.Selected().Target.Addr().Interface().(benchScenario)
	if !ok {
		return nil, fmt.Errorf("bench: %q is no scenario", args)
	}
	return c, nil
}

// keep writes the reports with one more, in the place of that of the same command
// if there is one.
func keep(file string, reports []*bench.Report, rep *bench.Report) ([]*bench.Report, error) {
	i := slices.IndexFunc(reports, func(r *bench.Report) bool { return r.Command == rep.Command })
	if i < 0 {
		i, reports = len(reports), append(reports, nil)
	}
	reports[i] = rep
	var b bytes.Buffer
	if err := bench.WriteReports(&b, reports); err != nil {
		return nil, err
	}
	return reports, os.WriteFile(file, b.Bytes(), 0o644)
}

// BenchPlotCmd is `carillon bench plot`.
type BenchPlotCmd struct {
	Files []string `arg:"" type:"existingfile" help:"Files with JSON results, one or more in each."`
	Out   string   `short:"o" default:"-" type:"path" placeholder:"FILE" help:"Where the SVG goes (default: standard output)."`
}

// Run draws.
func (c *BenchPlotCmd) Run(std *IO) error {
	var all []*bench.Report
	for _, file := range c.Files {
		some, err := readReports(file)
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		all = append(all, some...)
	}
	if c.Out == "-" {
		return bench.WritePlot(std.Out, all)
	}
	return plotInto(c.Out, all)
}

func readReports(file string) ([]*bench.Report, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return bench.ReadReports(f)
}

func plotInto(file string, reports []*bench.Report) error {
	var b bytes.Buffer
	if err := bench.WritePlot(&b, reports); err != nil {
		return err
	}
	return os.WriteFile(file, b.Bytes(), 0o644)
}
