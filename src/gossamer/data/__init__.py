"""From a folder, a CSV file or tar shards to batches of images with their targets."""
