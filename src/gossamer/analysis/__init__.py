"""What a network is made of and costs: the one tracer, shapes without numbers, a formula an operator."""
