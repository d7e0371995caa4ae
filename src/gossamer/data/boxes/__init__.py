"""Boxes drawn on images: PASCAL VOC, COCO and YOLO folders, read, written and turned into one another."""
