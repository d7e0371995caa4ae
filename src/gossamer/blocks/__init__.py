"""The bricks that networks are built of: each usable alone, with its shapes, its cost and its source.

Costs are in multiply-adds (MACs) of one image; h and w are the height and width of the output.
"""
