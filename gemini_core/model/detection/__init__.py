"""3D detection: geometry of oriented boxes, and the networks that find them."""
