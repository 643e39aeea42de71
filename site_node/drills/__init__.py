"""Recovery drills: a backup counts when it was restored, shown by a PACS, and compared with what was archived."""
