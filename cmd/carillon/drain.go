package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/carillon-rt/carillon/internal/config"
)

// DrainCmd is `carillon drain`.
type DrainCmd struct {
	URL    string `help:"The node's operations port (default: http://127.0.0.1:8081)." env:"CARILLON_OPS_URL" default:"http://127.0.0.1:8081" placeholder:"URL"`
	Key    string `help:"A key of the operator; 'carillon keys new --ops' makes one." env:"CARILLON_OPS_KEY" placeholder:"KEY"`
	Window string `help:"Send the clients away spread over so long (default: drain.window of the node)." placeholder:"DURATION"`
	Rate   *int   `help:"Send at most so many away in a second, 0: no limit (default: drain.rate of the node)." placeholder:"N"`
	Wait   bool   `help:"Wait until the node has sent them away and answers no more."`
	JSON   bool   `help:"Print JSON." name:"json"`
}

// Help is shown below the usage.
func (c *DrainCmd) Help() string {
	return "The node takes no new clients (/readyz says draining), sends away those it has, and ends with 0, as after SIGTERM: " +
		"a service manager that starts it again only after failures leaves it down. Nothing that was accepted is lost."
}

// Validate checks the flags that a node would refuse.
func (c *DrainCmd) Validate() error {
	if c.Window != "" {
		if _, err := config.ParseDuration(c.Window); err != nil {
			return fmt.Errorf("--window: %w", err)
		}
	}
	if c.Rate != nil && *c.Rate < 0 {
		return fmt.Errorf("--rate: %d is negative", *c.Rate)
	}
	return nil
}

// drained is the node's answer.
type drained struct {
	Status      string `json:"status"`
	Connections int    `json:"connections"`
	Window      string `json:"window"`
	Rate        int    `json:"rate"`
	Deadline    string `json:"deadline"`
}

// answerTimeout is how long a node may take to answer.
const answerTimeout = 10 * time.Second

// Run asks the node to drain.
func (c *DrainCmd) Run(ctx context.Context, std *IO) error {
	ask := map[string]any{}
	if c.Window != "" {
		ask["window"] = c.Window
	}
	if c.Rate != nil {
		ask["rate"] = *c.Rate
	}
	body, err := json.Marshal(ask)
	if err != nil {
		return err
	}
	// One connection, and no other: when it ends so has the node, and to make a new
	// one would start a node again whose port a service manager holds.
	var dialed atomic.Bool
	transport := &http.Transport{DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		if dialed.Swap(true) {
			return nil, errEnded
		}
		return new(net.Dialer).DialContext(ctx, network, addr)
	}}
	defer transport.CloseIdleConnections()
	node := &http.Client{Transport: transport, Timeout: answerTimeout}

	status, text, err := c.do(ctx, node, http.MethodPost, "/v1/drain", body)
	switch {
	case err != nil:
		return hint(fmt.Errorf("the node does not answer: %w", err), "is %s its operations port (ops.listen)? --url or CARILLON_OPS_URL names another", c.URL)
	case status != http.StatusAccepted:
		return c.refused(status, text)
	}
	var d drained
	if err := json.Unmarshal(text, &d); err != nil {
		return fmt.Errorf("the node's answer cannot be read: %w", err)
	}
	if c.JSON {
		if _, err := std.Out.Write(text); err != nil {
			return err
		}
	} else {
		d.print(std)
	}
	if !c.Wait {
		return nil
	}
	for err == nil {
		select {
		case <-ctx.Done():
			return errors.New("it drains on, but was not waited for")
		case <-time.After(500 * time.Millisecond):
		}
		_, _, err = c.do(ctx, node, http.MethodGet, "/readyz", nil)
	}
	fmt.Fprintln(std.Err, "the node has ended")
	return nil
}

var errEnded = errors.New("the node has ended")

func (c *DrainCmd) do(ctx context.Context, node *http.Client, method, path string, body []byte) (status int, text []byte, err error) {
	r, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(c.URL, "/")+path, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	if c.Key != "" {
		r.Header.Set("Authorization", "Bearer "+c.Key)
	}
	resp, err := node.Do(r)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	const most = 64 << 10
	text, err = io.ReadAll(io.LimitReader(resp.Body, most))
	return resp.StatusCode, text, err
}

// refused is what the node says, and what would help.
func (c *DrainCmd) refused(status int, text []byte) error {
	var problem struct {
		Detail string `json:"detail"`
	}
	if json.Unmarshal(text, &problem) != nil || problem.Detail == "" {
		return hint(fmt.Errorf("the node answers with %d", status), "is %s its operations port (ops.listen)? --url or CARILLON_OPS_URL names another", c.URL)
	}
	err := errors.New(problem.Detail)
	if status == http.StatusUnauthorized {
		return hint(err, "give the key with --key or CARILLON_OPS_KEY")
	}
	return err
}

func (d *drained) print(std *IO) {
	how := "over " + d.Window
	if d.Rate > 0 {
		how += fmt.Sprintf(", at most %s a second", count(d.Rate))
	}
	fmt.Fprintf(std.Out, "draining %s %s; what is left after %s is cut\n", several(d.Connections, "connection"), how, d.Deadline)
}
