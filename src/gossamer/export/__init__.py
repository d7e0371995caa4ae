"""From a trained run to files that can be shipped."""
