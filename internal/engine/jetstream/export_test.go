package jetstream

// Divide is what a disk of so many bytes gives to events and to the intakes.
func Divide(disk, events, intake int64, partitions int) (ofEvents, ofIntake int64, err error) {
	return divide("the directory", disk, events, intake, partitions)
}
