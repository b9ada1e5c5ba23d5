package jetstream

import "fmt"

// divide decides how many bytes of a disk the events may use, and the intakes:
// what was asked for, or the defaults within the disk. disk is what is free or the
// store's already; a tenth of it stays free for what is not ours and for the
// server's staging files. Events come first, but for an intake somebody asked for:
// one that nobody asked for has what they leave, or half of that tenth.
//
// Defaults are in steps, so that a restart seldom changes them.
func divide(dir string, disk, events, intake int64, partitions int) (ofEvents, ofIntake int64, err error) {
	least := int64(partitions) * minBudget
	room := disk / 10 * 9
	if err := checkIntake(intake); err != nil {
		return 0, 0, err
	}
	if intake > room {
		return 0, 0, fmt.Errorf("jetstream: a disk budget of %s for the intakes does not fit: %s has room for %s",
			byteSize(intake), dir, byteSize(room))
	}
	room -= intake
	switch {
	case events > 0 && events < least:
		return 0, 0, fmt.Errorf("jetstream: a disk budget of %s is too little for %d partitions; at least %s",
			byteSize(events), partitions, byteSize(least))
	case events > room && intake > 0:
		return 0, 0, fmt.Errorf("jetstream: a disk budget of %s does not fit beside one of %s for the intakes: %s has room for %s",
			byteSize(events), byteSize(intake), dir, byteSize(room))
	case events > room:
		return 0, 0, fmt.Errorf("jetstream: a disk budget of %s does not fit: %s has room for %s",
			byteSize(events), dir, byteSize(room))
	case events > 0:
	case room >= DefaultMaxBytes:
		events = DefaultMaxBytes
	case room < least:
		return 0, 0, fmt.Errorf("jetstream: %s has room for %s; %d partitions need at least %s",
			dir, byteSize(room), partitions, byteSize(least))
	default:
		events = max(least, room>>28<<28)
	}
	if intake == 0 {
		left := max(room-events, disk/20)
		intake = max(minIntake, min(intakeOf(events), left>>25<<25))
	}
	return events, intake, nil
}

// intakeOf is how many bytes the intakes have beside so many of events, where
// nobody has asked for another number and the disk has them.
func intakeOf(events int64) int64 {
	return min(max(events/5*2, minIntake), DefaultIntakeMaxBytes)
}

func checkIntake(asked int64) error {
	if asked > 0 && asked < minIntake {
		return fmt.Errorf("jetstream: a disk budget of %s is too little for the intakes; at least %s",
			byteSize(asked), byteSize(minIntake))
	}
	return nil
}
