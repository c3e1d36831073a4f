"""Differentiable functions of tensors: each validates, allocates, calls a kernel, and knows its gradient rule."""
