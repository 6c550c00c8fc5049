"""Muon (orthogonalised momentum) for the matrices, each expert's on its own; AdamW for embedding, router and norms."""

import torch


def orthogonalise(g, steps=5):
    """The nearest (semi-)orthogonal matrices of a stack [n, a, b] with a <= b, by Newton-Schulz in bf16."""
    x = g.bfloat16()
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        a = x @ x.mT
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x.float()


class Muon:
    """Groups parameters by (rows, columns) of a single matrix. An entry is (parameter, axis, parts): the parameter holds
    `parts` matrices side by side along `axis`."""

    def __init__(self, entries, momentum=0.95, weight_decay=0.1, compile=False):
        self.groups, self.momentum, self.weight_decay = {}, momentum, weight_decay
        self.run = torch.compile(orthogonalise, dynamic=False) if compile else orthogonalise
        for parameter, axis, parts in entries:
            shape = tuple(self.split(parameter.data, axis, parts).shape[1:])
            self.groups.setdefault(shape, []).append((parameter, axis, parts))
        self.buffers = {shape: [torch.zeros_like(p) for p, _, _ in group] for shape, group in self.groups.items()}

    @staticmethod
    def split(x, axis, parts):
        """[parts, rows, columns] with rows <= columns, as a view."""
        x = x.unflatten(axis, (parts, -1))
        if axis == 1:
            x = x.permute(1, 0, 2)
        return x if x.shape[1] <= x.shape[2] else x.mT

    @torch.no_grad()
    def step(self, lr):
        for shape, group in self.groups.items():
            buffers = self.buffers[shape]
            gradients = [parameter.grad for parameter, _, _ in group]
            torch._foreach_lerp_(buffers, gradients, 1 - self.momentum)
            updates = torch._foreach_lerp(gradients, buffers, self.momentum)
            stack = torch.cat([self.split(u, axis, parts) for u, (_, axis, parts) in zip(updates, group)])
            stack = self.run(stack) * (0.2 * max(shape) ** 0.5 * lr)
            start = 0
            for parameter, axis, parts in group:
                parameter.mul_(1 - lr * self.weight_decay)
                self.split(parameter.data, axis, parts).sub_(stack[start:start + parts])
                start += parts
