#include "graph.h"

#include <stdlib.h>
#include <string.h>

static void *grown(void *items, int n, size_t size) {
    if (n & (n - 1)) return items; /* room is doubled at powers of two */
    items = realloc(items, (n ? (size_t)n * 2 : 1) * size);
    PVA_ASSERT(items);
    return items;
}

void spd_graph_free(struct spd_graph *g) {
    for (int i = 0; i < g->n_matrices; i++)
        if (g->matrices[i].own) g->device.ops->free(g->device.own, g->matrices[i].own);
    free(g->nodes);
    free(g->ops);
    free(g->matrices);
    memset(g, 0, sizeof *g);
}

int spd_graph_node(struct spd_graph *g, int dim, int trained) {
    g->nodes = grown(g->nodes, g->n_nodes, sizeof *g->nodes);
    g->nodes[g->n_nodes] = (struct spd_node){.dim = dim, .trained = trained};
    return g->n_nodes++;
}

int spd_graph_matrix(struct spd_graph *g, int n_in, int n_out, const real *value, ptrdiff_t grad) {
    g->matrices = grown(g->matrices, g->n_matrices, sizeof *g->matrices);
    g->matrices[g->n_matrices] =
        (struct spd_matrix){.n_in = n_in, .n_out = n_out, .value = value, .grad = grad, .left = -1, .right = -1};
    return g->n_matrices++;
}

static void form(const struct spd_graph *g, struct spd_matrix *p, int part, int n_parts) {
    const struct spd_matrix *a = &g->matrices[p->left], *b = &g->matrices[p->right];
    const struct spd_device *d = &g->device;
    int first = (int)((int64_t)p->n_in * part / n_parts), last = (int)((int64_t)p->n_in * (part + 1) / n_parts);
    real *out = p->own + (size_t)first * p->n_out;
    d->ops->zero(d->own, out, (size_t)(last - first) * p->n_out * sizeof *out);
    d->ops->product(d->own, last - first, a->n_out, p->n_out, a->value + (ptrdiff_t)first * a->n_out, a->n_out, 1, b->value,
                    b->n_out, 1, out, p->n_out);
}

int spd_graph_product(struct spd_graph *g, int left, int right) {
    for (int i = 0; i < g->n_matrices; i++)
        if (g->matrices[i].left == left && g->matrices[i].right == right) return i;
    const struct spd_matrix *a = &g->matrices[left], *b = &g->matrices[right];
    PVA_ASSERT(a->n_out == b->n_in);
    int trained = a->grad >= 0 || b->grad >= 0, n_in = a->n_in, n_out = b->n_out;
    int id = spd_graph_matrix(g, n_in, n_out, NULL, -1);
    struct spd_matrix *p = &g->matrices[id];
    void *own = NULL;
    g->device.ops->alloc(g->device.own, (size_t)n_in * n_out * sizeof *p->own, &own, &g->late);
    p->value = p->own = own;
    p->left = left;
    p->right = right;
    if (trained) {
        p->grad = g->n_slots;
        g->n_slots += (ptrdiff_t)n_in * n_out;
    } else if (own) {
        form(g, p, 0, 1);
    }
    return id;
}

void spd_graph_form_products(struct spd_graph *g, int part, int n_parts) {
    for (int i = 0; i < g->n_matrices; i++)
        if (g->matrices[i].left >= 0 && g->matrices[i].grad >= 0) form(g, &g->matrices[i], part, n_parts);
}

/* d(left) += d(product) right^T; d(right) += left^T d(product). Factors are parameters, so no product depends on another. */
void spd_graph_return_products(const struct spd_graph *g, real *grad, int part, int n_parts) {
    const struct pva_spd_ops *ops = g->device.ops;
    void *own = g->device.own;
    for (int i = 0; i < g->n_matrices; i++) {
        const struct spd_matrix *p = &g->matrices[i];
        if (p->left < 0 || p->grad < 0) continue;
        const struct spd_matrix *a = &g->matrices[p->left], *b = &g->matrices[p->right];
        const real *d = grad + p->grad;
        if (a->grad >= 0) {
            int first = (int)((int64_t)a->n_in * part / n_parts), last = (int)((int64_t)a->n_in * (part + 1) / n_parts);
            ops->product(own, last - first, b->n_out, a->n_out, d + (ptrdiff_t)first * p->n_out, p->n_out, 1, b->value, 1,
                         b->n_out, grad + a->grad + (ptrdiff_t)first * a->n_out, a->n_out);
        }
        if (b->grad >= 0) {
            int first = (int)((int64_t)b->n_in * part / n_parts), last = (int)((int64_t)b->n_in * (part + 1) / n_parts);
            ops->product(own, last - first, a->n_in, b->n_out, a->value + first, 1, a->n_out, d, p->n_out, 1,
                         grad + b->grad + (ptrdiff_t)first * b->n_out, b->n_out);
        }
    }
}

struct spd_op *spd_graph_op(struct spd_graph *g, enum spd_op_kind kind, int in, int out, int group) {
    g->ops = grown(g->ops, g->n_ops, sizeof *g->ops);
    struct spd_op *op = &g->ops[g->n_ops++];
    *op = (struct spd_op){.kind = kind,
                          .in = in,
                          .out = out,
                          .matrix = -1,
                          .group = group,
                          .bias_grad = -1,
                          .gate = -1,
                          .draw = -1,
                          .params_grad = -1,
                          .cache = -1};
    return op;
}

int spd_graph_matmul(struct spd_graph *g, int in, int matrix, int group) {
    int out = spd_graph_node(g, g->matrices[matrix].n_out, g->nodes[in].trained || g->matrices[matrix].grad >= 0);
    PVA_ASSERT(g->nodes[in].dim == g->matrices[matrix].n_in);
    spd_graph_op(g, SPD_MATMUL, in, out, group)->matrix = matrix;
    return out;
}

int spd_graph_finish(struct spd_graph *g, int chunk, struct pva_error *err) {
    g->chunk = chunk;
    size_t row = 0;
    for (int i = 0; i < g->n_nodes; i++) {
        g->nodes[i].value = row;
        row += (size_t)g->nodes[i].dim;
    }
    g->n_values = row;
    for (int i = 0; i < g->n_nodes; i++) {
        if (!g->nodes[i].trained) continue;
        g->nodes[i].gradient = row;
        row += (size_t)g->nodes[i].dim;
    }
    g->n_rows = row;
    *err = g->late;
    return err->code;
}

static int is_on(const struct spd_op *op, const unsigned char *on) { return op->group < 0 || on[op->group]; }

/* Which MATMUL is the first into its node is known from the order: it finds the node cleared. */
static void clear_outputs(const struct spd_graph *g, real *arena, int n, const unsigned char *on) {
    for (int i = 0; i < g->n_ops; i++) {
        const struct spd_op *op = &g->ops[i];
        if (op->kind == SPD_MATMUL && is_on(op, on))
            g->device.ops->clear(g->device.own, g->nodes[op->out].dim, n, g->chunk, spd_value(g, arena, op->out));
    }
}

/* From one component's input to the next: a row, or nothing where all read the module's whole input. */
static int gate_step(const struct spd_graph *g, const struct spd_op *op) {
    return g->nodes[op->in].dim == g->nodes[op->out].dim && op->shape->d[0] == 1 ? g->chunk : 0;
}

void spd_graph_forward(const struct spd_graph *g, real *arena, int n, const unsigned char *on) {
    const struct pva_spd_ops *ops = g->device.ops;
    void *own = g->device.own;
    const int ld = g->chunk;
    clear_outputs(g, arena, n, on);
    for (int i = 0; i < g->n_ops; i++) {
        const struct spd_op *op = &g->ops[i];
        if (!is_on(op, on)) continue;
        const real *in = spd_value(g, arena, op->in);
        real *out = spd_value(g, arena, op->out);
        const int dim = g->nodes[op->out].dim;
        switch (op->kind) {
        case SPD_MATMUL: {
            const struct spd_matrix *m = &g->matrices[op->matrix];
            ops->matmul(own, n, ld, m->n_in, m->n_out, m->value, m->n_out, 1, in, out);
            break;
        }
        case SPD_COPY: ops->copy(own, dim, n, ld, in, out); break;
        case SPD_RELU: ops->relu(own, dim, n, ld, in, op->bias, out); break;
        case SPD_GATE:
            ops->gate_forward(own, n, ld, dim, op->shape, op->params, in, gate_step(g, op), out,
                              op->cache < 0 ? NULL : spd_value(g, arena, op->cache));
            break;
        case SPD_SIGMOID: ops->sigmoid(own, dim, n, ld, op->sigmoid, in, out); break;
        case SPD_ABS: ops->absolute(own, dim, n, ld, in, out); break;
        case SPD_MASK: ops->mask(own, dim, n, ld, in, spd_value(g, arena, op->gate), spd_value(g, arena, op->draw), out); break;
        }
    }
}

void spd_graph_clear(const struct spd_graph *g, real *arena) {
    g->device.ops->zero(g->device.own, arena + g->n_values * (size_t)g->chunk,
                        (g->n_rows - g->n_values) * (size_t)g->chunk * sizeof *arena);
}

/* Only targets train a bias, and they do it on the processor. */
static void bias_backward(const struct spd_graph *g, int dim, int n, int ld, const real *out, const real *dout, real *grad) {
    PVA_ASSERT(g->device.ops->is_host);
    for (int r = 0; r < dim; r++) {
        real sum = 0;
        for (int s = 0; s < n; s++) sum += out[(size_t)r * ld + s] > 0 ? dout[(size_t)r * ld + s] : 0;
        grad[r] += sum;
    }
}

void spd_graph_backward(const struct spd_graph *g, real *arena, int n, const unsigned char *on, real *grad) {
    const struct pva_spd_ops *ops = g->device.ops;
    void *own = g->device.own;
    const int ld = g->chunk;
    for (int i = g->n_ops - 1; i >= 0; i--) {
        const struct spd_op *op = &g->ops[i];
        if (!is_on(op, on) || !g->nodes[op->out].trained) continue;
        const real *in = spd_value(g, arena, op->in), *out = spd_value(g, arena, op->out),
                   *dout = spd_gradient(g, arena, op->out);
        real *din = g->nodes[op->in].trained ? spd_gradient(g, arena, op->in) : NULL;
        const int dim = g->nodes[op->out].dim;
        switch (op->kind) {
        case SPD_MATMUL: {
            const struct spd_matrix *m = &g->matrices[op->matrix];
            if (din) ops->matmul(own, n, ld, m->n_out, m->n_in, m->value, 1, m->n_out, dout, din);
            if (m->grad >= 0) ops->outer(own, n, ld, m->n_in, m->n_out, in, dout, grad + m->grad);
            break;
        }
        case SPD_COPY:
            if (din) ops->add(own, dim, n, ld, dout, din);
            break;
        case SPD_RELU:
            if (din) ops->relu_backward(own, dim, n, ld, out, dout, din);
            if (op->bias_grad >= 0) bias_backward(g, dim, n, ld, out, dout, grad + op->bias_grad);
            break;
        case SPD_GATE:
            ops->gate_backward(own, n, ld, dim, op->shape, op->params, in, gate_step(g, op),
                               op->cache < 0 ? NULL : spd_value(g, arena, op->cache), dout, grad + op->params_grad, din);
            break;
        case SPD_SIGMOID: ops->sigmoid_backward(own, dim, n, ld, op->sigmoid, in, dout, din); break;
        case SPD_ABS: ops->absolute_backward(own, dim, n, ld, in, dout, din); break;
        case SPD_MASK:
            ops->mask_backward(own, dim, n, ld, in, spd_value(g, arena, op->gate), spd_value(g, arena, op->draw), dout, din,
                               spd_gradient(g, arena, op->gate));
            break;
        }
    }
}
