"""From photographs to a training set: photographs in, shards of aligned crops out."""
