"""Matrices in few bits, behind the one product of `swarm.model.product`."""
