package org_test

import (
	"slices"
	"sync"
	"testing"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/org"
)

func TestFixedDirectoryKnowsItsOrganizationsOnly(t *testing.T) {
	d, err := org.NewDirectory(org.Config{
		Orgs:     []org.Org{{ID: "b", Disabled: true}, {ID: "a", Limits: org.Limits{Connections: 7}}},
		Defaults: org.Limits{Connections: 9}, // of an open one only
	})
	if err != nil {
		t.Fatal(err)
	}
	a, ok := d.Get("a")
	if !ok || a.ID != "a" || a.Limits.Connections != 7 || a.Disabled || d.Open() {
		t.Errorf("a is %+v, %t", a, ok)
	}
	if b, ok := d.Get("b"); !ok || !b.Disabled {
		t.Errorf("b is %+v, %t", b, ok)
	}
	for _, id := range []carillon.OrgID{"c", "", "A", "*"} {
		if o, ok := d.Get(id); ok || o != nil {
			t.Errorf("%q exists: %+v", id, o)
		}
	}
	if ids := d.IDs(); !slices.Equal(ids, []carillon.OrgID{"a", "b"}) {
		t.Errorf("ids %v", ids)
	}
}

func TestOpenDirectoryKnowsEveryOrganizationFromItsFirstUse(t *testing.T) {
	d, err := org.NewDirectory(org.Config{Open: true, Orgs: []org.Org{{ID: "a"}}, Defaults: org.Limits{Connections: 9}})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	got := make([]*org.Org, 8)
	for i := range got {
		wg.Go(func() { got[i], _ = d.Get("new") })
	}
	wg.Wait()
	for _, o := range got {
		if o == nil || o != got[0] || o.Limits.Connections != 9 {
			t.Errorf("%p %+v is another than %p", o, o, got[0])
		}
	}
	if a, _ := d.Get("a"); a.Limits.Connections != 0 {
		t.Errorf("a, which has its own limits, is %+v", a)
	}
	if _, ok := d.Get("Not valid"); ok {
		t.Error("an invalid id exists")
	}
	if ids := d.IDs(); !slices.Equal(ids, []carillon.OrgID{"a", "new"}) {
		t.Errorf("ids %v", ids)
	}
}

func TestDirectoryRefuses(t *testing.T) {
	for name, cfg := range map[string]org.Config{
		"a name twice":       {Orgs: []org.Org{{ID: "a"}, {ID: "a"}}},
		"an invalid name":    {Orgs: []org.Org{{ID: "A"}}},
		"no name":            {Orgs: []org.Org{{}}},
		"a negative limit":   {Orgs: []org.Org{{ID: "a", Limits: org.Limits{PublishBytesPerSecond: -1}}}},
		"a key twice":        {Orgs: []org.Org{{ID: "a", Keys: []org.Key{{ID: "k"}}}, {ID: "b", Keys: []org.Key{{ID: "k"}}}}},
		"a strange key id":   {Orgs: []org.Org{{ID: "a", Keys: []org.Key{{ID: "A_b"}}}}},
		"a negative default": {Defaults: org.Limits{PublishBurst: -1}},
	} {
		if _, err := org.NewDirectory(cfg); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}
