package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
)

// HooksRetryCmd has deliveries processed again.
type HooksRetryCmd struct {
	Remote

	HooksChoice `embed:""`
}

// HooksDiscardCmd gives up on deliveries.
type HooksDiscardCmd struct {
	Remote

	HooksChoice `embed:""`
}

// HooksChoice says which deliveries.
type HooksChoice struct {
	IDs    []string `arg:"" optional:"" name:"id" help:"Deliveries: their ids, or those that the provider gave them."`
	Dead   bool     `help:"All dead letters, or those of --source and --event."`
	Source string   `help:"With --dead: of this source." placeholder:"NAME"`
	Event  string   `help:"With --dead: what the provider calls so; 'pull_request.*' is all that begin so." placeholder:"EVENT"`
	JSON   bool     `help:"Print JSON." name:"json"`
}

// Validate refuses a choice that is none, or too much.
func (c *HooksChoice) Validate() error {
	switch {
	case !c.Dead && len(c.IDs) == 0:
		return errors.New("which deliveries? name their ids, or --dead for all dead letters")
	case c.Dead && len(c.IDs) > 0:
		return errors.New("--dead is all dead letters; leave out the ids, or --dead")
	case !c.Dead && c.Source+c.Event != "":
		return errors.New("--source and --event go with --dead")
	}
	return nil
}

// Run retries them.
func (c *HooksRetryCmd) Run(ctx context.Context, std *IO) error {
	return c.ask(ctx, std, &c.Remote, "retry", "will be processed again")
}

// Run discards them.
func (c *HooksDiscardCmd) Run(ctx context.Context, std *IO) error {
	return c.ask(ctx, std, &c.Remote, "discard", "discarded")
}

// ask asks for all of them, also where one of them is refused.
func (c *HooksChoice) ask(ctx context.Context, std *IO, r *Remote, what, done string) error {
	api, err := r.hooks()
	if err != nil {
		return err
	}
	if c.Dead {
		return c.askDead(ctx, std, api, r, what, done)
	}
	var errs []error
	for _, id := range c.IDs {
		var answer struct {
			ID string `json:"id"`
		}
		if err := api.do(ctx, what, http.MethodPost, deliveryPath(id)+"/"+what, nil, &answer); err != nil {
			if len(c.IDs) == 1 {
				return r.explain(err)
			}
			errs = append(errs, fmt.Errorf("%s: %w", visible(id), err))
			continue
		}
		if c.JSON {
			err = std.printJSON(answer)
		} else {
			_, err = fmt.Fprintf(std.Out, "%s %s\n", visible(id), done)
		}
		if err != nil {
			return err
		}
	}
	return r.explain(errors.Join(errs...))
}

func (c *HooksChoice) askDead(ctx context.Context, std *IO, api *hookAPI, r *Remote, what, done string) error {
	body := map[string]string{}
	if c.Source != "" {
		body["source"] = c.Source
	}
	if c.Event != "" {
		body["event"] = c.Event
	}
	all := 0
	for {
		var answer struct {
			Deliveries int    `json:"deliveries"`
			Next       string `json:"next"`
		}
		if err := api.do(ctx, what, http.MethodPost, "/v1/hooks/"+what, body, &answer); err != nil {
			if all > 0 {
				std.say("%s %s before that", several(all, "dead letter"), done)
			}
			return r.explain(err)
		}
		all += answer.Deliveries
		if answer.Next == "" {
			break
		}
		body["before"] = answer.Next
	}
	if c.JSON {
		return std.printJSON(map[string]int{"deliveries": all})
	}
	_, err := fmt.Fprintf(std.Out, "%s %s\n", several(all, "dead letter"), done)
	return err
}
