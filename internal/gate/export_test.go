package gate

// Remembered is how many organizations the gate remembers.
func Remembered(g *Gate) int {
	g.tenants.mu.Lock()
	defer g.tenants.mu.Unlock()
	return len(g.tenants.m)
}
