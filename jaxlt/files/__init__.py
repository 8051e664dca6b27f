"""What all files have in common: bounded reading of foreign ones, locks, digests, full disks."""
