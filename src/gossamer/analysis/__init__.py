"""The layers of a network and what they cost: the one tracer, shapes without numbers, one formula per operator."""
