package config

import "fmt"

// Hooks is how webhooks are taken in. The sources stand with their organizations.
type Hooks struct {
	Files        []string      `yaml:"files"`    // hooks files, as of adnanh/webhook
	Strict       bool          `yaml:"strict"`   // hooks files: refuse with the status that fits, not as adnanh/webhook does
	KeyFile      string        `yaml:"key_file"` // what secrets in the store are encrypted with; "": hooks.key in data
	Ledger       string        `yaml:"ledger"`   // a file of SQLite; "": hooks.db in data
	Spool        string        `yaml:"spool"`    // a directory; "": hooks-spool in data
	Retention    HookRetention `yaml:"retention"`
	Keep         Duration      `yaml:"keep"`          // how long what became of deliveries is listed
	Known        Duration      `yaml:"known"`         // how long a delivery is recognised
	AnswerWithin Duration      `yaml:"answer_within"` // before a sender is told to come back
	Workers      int           `yaml:"workers"`       // deliveries that are processed at the same time
	Commands     Commands      `yaml:"commands"`
}

// HookRetention says how much of what webhooks brought is kept. What is beyond any of
// them goes, oldest first, and can neither be shown nor retried any more.
type HookRetention struct {
	Age         Duration `yaml:"age"`
	Bytes       Size     `yaml:"bytes"`         // of all organizations together
	BytesPerOrg Size     `yaml:"bytes_per_org"` // 0: no limit
}

// Commands bound what webhooks run.
type Commands struct {
	Timeout      Duration `yaml:"timeout"`
	Output       Size     `yaml:"output"`
	Concurrent   int      `yaml:"concurrent"`    // at the same time
	PerHook      int      `yaml:"per_hook"`      // of them of one hook or source
	Queue        int      `yaml:"queue"`         // that wait
	Environment  []string `yaml:"environment"`   // names of variables that they get, beside PATH, HOME and LANG
	AllowPrivate bool     `yaml:"allow_private"` // requests may go to private and loopback addresses
}

func (k *checker) hooks(c *Config) {
	h := &c.Hooks
	k.atLeast("hooks.retention.age", h.Retention.Age, minute)
	if b := h.Retention.Bytes; b < mib {
		k.say("hooks.retention.bytes", "is %s; it is at least 1MiB: a log without a limit fills the disk", b)
	}
	k.orgBytes("hooks.retention.bytes_per_org", h.Retention.BytesPerOrg)
	k.atLeast("hooks.keep", h.Keep, minute)
	k.atLeast("hooks.known", h.Known, second)
	if h.Known > h.Keep {
		k.say("hooks.known", "is %s, longer than deliveries are listed (hooks.keep, %s)", h.Known, h.Keep)
	}
	if h.Known > h.Retention.Age {
		k.say("hooks.known", "is %s, longer than deliveries are kept (hooks.retention.age, %s)", h.Known, h.Retention.Age)
	}
	if d := h.AnswerWithin; d < second/10 || d > minute {
		k.say("hooks.answer_within", "is %s; it is from 100ms to 1m: senders give up after 3 to 10 seconds", d)
	}
	k.between("hooks.workers", int64(h.Workers), 1, 10_000)
	m := &h.Commands
	k.atLeast("hooks.commands.timeout", m.Timeout, second/10)
	if m.Output < 0 || m.Output > 16*mib {
		k.say("hooks.commands.output", "is %s; it is from 0 to 16MiB", m.Output)
	}
	k.between("hooks.commands.concurrent", int64(m.Concurrent), 1, 10_000)
	k.between("hooks.commands.per_hook", int64(m.PerHook), 1, 10_000)
	k.between("hooks.commands.queue", int64(m.Queue), 0, 1_000_000)
	for _, s := range []struct {
		path string
		n    Size
	}{{"limits.hook_bytes_in_flight", c.Limits.HookBytesInFlight}, {"limits.hook_spool_bytes", c.Limits.HookSpoolBytes}} {
		if s.n < mib || s.n > 1024*gib {
			k.say(s.path, "is %s; it is from 1MiB to 1TiB", s.n)
		}
	}
	k.between("limits.hook_sources", int64(c.Limits.HookSources), 1, 100_000)
	k.between("limits.hook_refusals_per_second", int64(c.Limits.HookRefusalsPerSecond), 1, 100_000)
	k.between("limits.hook_deliveries_in_memory", int64(c.Limits.HookDeliveriesInMemory), 10, 10_000_000)
	for i := range c.Orgs {
		if n := len(c.Orgs[i].Sources); n > c.Limits.HookSources {
			k.say(fmt.Sprintf("orgs[%d].sources", i), "are %d; at most limits.hook_sources (%d)", n, c.Limits.HookSources)
		}
	}
}
