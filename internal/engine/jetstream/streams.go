package jetstream

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/carillon-rt/carillon/internal/engine"
)

// led waits until a partition has a leader, which answers: in a cluster that has
// just started that takes some seconds.
func (e *Engine) led(ctx context.Context, p *partition) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	for {
		_, err := e.state(ctx, p)
		if err == nil || e.config.NATS == nil {
			return err
		}
		select {
		case <-time.After(retryWait):
		case <-ctx.Done():
			return err
		}
	}
}

// allot decides how many bytes the events may use, and the intakes.
func (e *Engine) allot() (err error) {
	events, intake := e.config.MaxBytes, e.config.IntakeMaxBytes
	if e.dir != nil {
		e.events.bytes, e.intake.bytes, err = e.dir.budget(events, intake, e.config.Partitions)
		return err
	}
	if err := checkIntake(intake); err != nil {
		return err
	}
	setDefault(&events, DefaultMaxBytes)
	setDefault(&intake, intakeOf(events))
	e.events.bytes, e.intake.bytes = events, intake
	return nil
}

// countPartitions makes the number of partitions the store's.
func (e *Engine) countPartitions(ctx context.Context) error {
	stored, _, err := e.kv.Get(ctx, keyPartitions)
	if errors.Is(err, engine.ErrNoKey) {
		setDefault(&e.config.Partitions, DefaultPartitions)
		stored = []byte(strconv.Itoa(e.config.Partitions))
		if _, err = e.kv.Create(ctx, keyPartitions, stored); errors.Is(err, engine.ErrKeyExists) { // another node was first
			stored, _, err = e.kv.Get(ctx, keyPartitions)
		}
	}
	if err != nil {
		return fmt.Errorf("jetstream: number of partitions: %w", err)
	}
	n, err := strconv.Atoi(string(stored))
	if err != nil || n < 1 {
		return fmt.Errorf("jetstream: the store says it has %q partitions", stored)
	}
	if asked := e.config.Partitions; asked != 0 && asked != n {
		return fmt.Errorf("jetstream: %s was made with %d partitions and cannot change to %d: "+
			"positions name them; export it and import it into a new store", e.config.place(), n, asked)
	}
	e.config.Partitions = n
	return nil
}

func (e *Engine) streamConfig(p *partition) jetstream.StreamConfig {
	age := e.config.Retention
	if p.kind == e.intake {
		age = e.config.IntakeRetention
	}
	return jetstream.StreamConfig{
		Name:               p.stream,
		Subjects:           []string{e.config.Prefix + "." + p.branch + ".*"},
		Retention:          jetstream.LimitsPolicy,
		Storage:            jetstream.FileStorage,
		Replicas:           e.config.replicas(),
		Discard:            jetstream.DiscardOld,
		MaxAge:             age,
		MaxMsgsPerSubject:  p.kind.perOrg,
		MaxBytes:           p.kind.bytes / int64(len(p.kind.parts)),
		MaxMsgSize:         maxMessage,
		MaxConsumers:       1000, // explicit: the server lets nothing else lift its own limit
		Duplicates:         e.config.DedupeWindow,
		AllowDirect:        true,
		AllowAtomicPublish: true,
	}
}

// adoptStream makes the partition's stream, or changes an existing one only
// where it really differs: an update is not free of side effects.
func (e *Engine) adoptStream(ctx context.Context, p *partition) error {
	want := e.streamConfig(p)
	stream, err := e.manage.Stream(ctx, p.stream)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		_, err = e.manage.CreateStream(ctx, want)
		return wrap(err, fmt.Sprintf("make stream %s of %s", p.stream, byteSize(want.MaxBytes)))
	}
	if err != nil {
		return wrap(err, "open stream "+p.stream)
	}
	have := stream.CachedInfo().Config
	if !p.kind.chosen { // a default budget follows the disk downwards only
		want.MaxBytes = min(want.MaxBytes, have.MaxBytes)
	}
	same := have.Replicas == want.Replicas && have.MaxAge == want.MaxAge && have.MaxMsgsPerSubject == want.MaxMsgsPerSubject &&
		have.MaxBytes == want.MaxBytes && have.MaxMsgSize == want.MaxMsgSize && have.Duplicates == want.Duplicates &&
		have.AllowDirect && have.AllowAtomicPublish && !have.AllowRollup && have.Discard == want.Discard && have.MaxConsumers == want.MaxConsumers
	if same {
		return nil
	}
	have.MaxAge, have.MaxMsgsPerSubject, have.MaxBytes = want.MaxAge, want.MaxMsgsPerSubject, want.MaxBytes
	have.MaxMsgSize, have.Duplicates, have.Discard, have.MaxConsumers = want.MaxMsgSize, want.Duplicates, want.Discard, want.MaxConsumers
	have.AllowDirect, have.AllowAtomicPublish, have.Replicas = true, true, want.Replicas
	have.AllowRollup = false // probe relies on it
	_, err = e.manage.UpdateStream(ctx, have)
	return wrap(err, "change stream "+p.stream)
}
