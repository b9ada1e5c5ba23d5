package carillon_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"time"

	carillon "github.com/carillon-rt/carillon/clients/go"
)

func Example() {
	ctx := context.Background()
	client, err := carillon.New(carillon.Options{
		URL:    "https://events.example.com",
		APIKey: os.Getenv("CARILLON_API_KEY"),
	})
	if err != nil {
		log.Fatal(err)
	}
	sub, err := client.Subscribe(ctx, []string{"workflow.>"}, carillon.SubscribeOptions{})
	if err != nil {
		log.Fatal(err)
	}
	defer sub.Close()
	for event, err := range sub.Events() {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(event.Type, event.Subject, string(event.Data))
	}
}

func ExampleClient_Publish() {
	client, err := carillon.New(carillon.Options{URL: "http://127.0.0.1:8080", APIKey: os.Getenv("CARILLON_API_KEY")})
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	receipts, err := client.Publish(ctx, carillon.Draft{
		Type:    "order.paid",
		Subject: "order-17",
		Data:    map[string]any{"amount": 1999, "currency": "EUR"},
		ID:      "payment-4711", // the same payment, told again, is one event
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(receipts[0].ID)
}

// A consumer that keeps its cursor misses nothing while it is not running.
func ExampleSubscription_Cursor() {
	ctx := context.Background()
	client, err := carillon.New(carillon.Options{URL: "http://127.0.0.1:8080", APIKey: os.Getenv("CARILLON_API_KEY")})
	if err != nil {
		log.Fatal(err)
	}
	kept, err := os.ReadFile("cursor")
	if errors.Is(err, os.ErrNotExist) {
		kept = []byte("earliest") // the first run
	} else if err != nil {
		log.Fatal(err)
	}
	sub, err := client.Subscribe(ctx, []string{"order.*"}, carillon.SubscribeOptions{After: string(kept)})
	if err != nil {
		log.Fatal(err)
	}
	defer sub.Close()
	for event, err := range sub.Events() {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(event.Type)
		if err := os.WriteFile("cursor", []byte(sub.Cursor()), 0o600); err != nil {
			log.Fatal(err)
		}
	}
}

func ExampleGap() {
	ctx := context.Background()
	client, err := carillon.New(carillon.Options{URL: "http://127.0.0.1:8080", APIKey: os.Getenv("CARILLON_API_KEY")})
	if err != nil {
		log.Fatal(err)
	}
	sub, err := client.Subscribe(ctx, []string{"order.*"}, carillon.SubscribeOptions{After: "-1h"})
	if err != nil {
		log.Fatal(err)
	}
	defer sub.Close()
	for event, err := range sub.Events() {
		var gap *carillon.Gap
		switch {
		case errors.As(err, &gap):
			fmt.Println("load the state anew:", gap) // and go on
		case err != nil:
			log.Fatal(err)
		default:
			fmt.Println(event.Type)
		}
	}
}

func ExampleClient_History() {
	ctx := context.Background()
	client, err := carillon.New(carillon.Options{URL: "http://127.0.0.1:8080", APIKey: os.Getenv("CARILLON_API_KEY")})
	if err != nil {
		log.Fatal(err)
	}
	query := carillon.Query{Patterns: []string{"order.*"}, After: "-24h"}
	for {
		page, err := client.History(ctx, query)
		if err != nil {
			log.Fatal(err)
		}
		for _, event := range page.Events {
			fmt.Println(event.Time, event.Type)
		}
		if !page.More {
			return
		}
		query.After = page.Cursor
	}
}

func ExampleClient_Poll() {
	ctx := context.Background()
	client, err := carillon.New(carillon.Options{URL: "http://127.0.0.1:8080", APIKey: os.Getenv("CARILLON_API_KEY")})
	if err != nil {
		log.Fatal(err)
	}
	query := carillon.PollQuery{Patterns: []string{"order.*"}, Wait: 25 * time.Second}
	for {
		page, err := client.Poll(ctx, query)
		if err != nil {
			log.Fatal(err)
		}
		for _, event := range page.Events {
			fmt.Println(event.Type)
		}
		query.After = page.Cursor
	}
}
