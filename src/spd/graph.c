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
    for (int i = 0; i < g->n_matrices; i++) free(g->matrices[i].own);
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

static void form(const struct spd_kernels *k, const struct spd_graph *g, struct spd_matrix *p, int part, int n_parts) {
    const struct spd_matrix *a = &g->matrices[p->left], *b = &g->matrices[p->right];
    int first = (int)((int64_t)p->n_in * part / n_parts), last = (int)((int64_t)p->n_in * (part + 1) / n_parts);
    real *out = p->own + (size_t)first * p->n_out;
    memset(out, 0, (size_t)(last - first) * p->n_out * sizeof *out);
    k->product(last - first, a->n_out, p->n_out, a->value + (ptrdiff_t)first * a->n_out, a->n_out, 1, b->value, b->n_out, 1, out,
               p->n_out);
}

int spd_graph_product(struct spd_graph *g, int left, int right) {
    for (int i = 0; i < g->n_matrices; i++)
        if (g->matrices[i].left == left && g->matrices[i].right == right) return i;
    const struct spd_matrix *a = &g->matrices[left], *b = &g->matrices[right];
    PVA_ASSERT(a->n_out == b->n_in);
    int trained = a->grad >= 0 || b->grad >= 0, n_in = a->n_in, n_out = b->n_out;
    int id = spd_graph_matrix(g, n_in, n_out, NULL, -1);
    struct spd_matrix *p = &g->matrices[id];
    p->own = malloc((size_t)n_in * n_out * sizeof *p->own);
    PVA_ASSERT(p->own);
    p->value = p->own;
    p->left = left;
    p->right = right;
    if (trained) {
        p->grad = g->n_slots;
        g->n_slots += (ptrdiff_t)n_in * n_out;
    } else {
        form(spd_kernels_best(), g, p, 0, 1);
    }
    return id;
}

void spd_graph_form_products(struct spd_graph *g, const struct spd_kernels *k, int part, int n_parts) {
    for (int i = 0; i < g->n_matrices; i++)
        if (g->matrices[i].left >= 0 && g->matrices[i].grad >= 0) form(k, g, &g->matrices[i], part, n_parts);
}

/* d(left) += d(product) right^T; d(right) += left^T d(product). Factors are parameters, so no product depends on another. */
void spd_graph_return_products(const struct spd_graph *g, const struct spd_kernels *k, real *grad, int part, int n_parts) {
    for (int i = 0; i < g->n_matrices; i++) {
        const struct spd_matrix *p = &g->matrices[i];
        if (p->left < 0 || p->grad < 0) continue;
        const struct spd_matrix *a = &g->matrices[p->left], *b = &g->matrices[p->right];
        const real *d = grad + p->grad;
        if (a->grad >= 0) {
            int first = (int)((int64_t)a->n_in * part / n_parts), last = (int)((int64_t)a->n_in * (part + 1) / n_parts);
            k->product(last - first, b->n_out, a->n_out, d + (ptrdiff_t)first * p->n_out, p->n_out, 1, b->value, 1, b->n_out,
                       grad + a->grad + (ptrdiff_t)first * a->n_out, a->n_out);
        }
        if (b->grad >= 0) {
            int first = (int)((int64_t)b->n_in * part / n_parts), last = (int)((int64_t)b->n_in * (part + 1) / n_parts);
            k->product(last - first, a->n_in, b->n_out, a->value + first, 1, a->n_out, d, p->n_out, 1,
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

void spd_graph_finish(struct spd_graph *g, int chunk) {
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
}

static int is_on(const struct spd_op *op, const unsigned char *on) { return op->group < 0 || on[op->group]; }

/* Which MATMUL is the first into its node is known from the order: it finds the node cleared. */
static void clear_outputs(const struct spd_graph *g, real *arena, int n, const unsigned char *on) {
    for (int i = 0; i < g->n_ops; i++) {
        const struct spd_op *op = &g->ops[i];
        if (op->kind != SPD_MATMUL || !is_on(op, on)) continue;
        real *out = spd_value(g, arena, op->out);
        for (int r = 0; r < g->nodes[op->out].dim; r++) memset(out + (size_t)r * g->chunk, 0, (size_t)n * sizeof *out);
    }
}

void spd_graph_forward(const struct spd_graph *g, const struct spd_kernels *k, real *arena, int n, const unsigned char *on) {
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
            k->matmul(n, ld, m->n_in, m->n_out, m->value, m->n_out, 1, in, out);
            break;
        }
        case SPD_COPY:
            for (int r = 0; r < dim; r++) memcpy(out + (size_t)r * ld, in + (size_t)r * ld, (size_t)n * sizeof *out);
            break;
        case SPD_RELU:
            for (int r = 0; r < dim; r++) {
                const real b = op->bias ? op->bias[r] : 0, *x = in + (size_t)r * ld;
                real *y = out + (size_t)r * ld;
                for (int s = 0; s < n; s++) y[s] = x[s] + b > 0 ? x[s] + b : 0;
            }
            break;
        case SPD_GATE:
            for (int c = 0; c < dim; c++)
                k->gate_forward(n, ld, op->shape, op->params + (size_t)c * op->shape->n_params,
                                g->nodes[op->in].dim == dim && op->shape->d[0] == 1 ? in + (size_t)c * ld : in,
                                out + (size_t)c * ld,
                                op->cache < 0 ? NULL : spd_value(g, arena, op->cache) + (size_t)c * op->shape->d[1] * ld);
            break;
        case SPD_SIGMOID:
            for (int r = 0; r < dim; r++) k->sigmoid(n, op->sigmoid, in + (size_t)r * ld, out + (size_t)r * ld);
            break;
        case SPD_ABS:
            for (int r = 0; r < dim; r++)
                for (int s = 0; s < n; s++)
                    out[(size_t)r * ld + s] = in[(size_t)r * ld + s] < 0 ? -in[(size_t)r * ld + s] : in[(size_t)r * ld + s];
            break;
        case SPD_MASK: {
            const real *gate = spd_value(g, arena, op->gate), *draw = spd_value(g, arena, op->draw);
            for (int r = 0; r < dim; r++)
                k->mask(n, in + (size_t)r * ld, gate + (size_t)r * ld, draw + (size_t)r * ld, out + (size_t)r * ld);
            break;
        }
        }
    }
}

void spd_graph_clear(const struct spd_graph *g, real *arena) {
    memset(arena + g->n_values * (size_t)g->chunk, 0, (g->n_rows - g->n_values) * (size_t)g->chunk * sizeof *arena);
}

void spd_graph_backward(const struct spd_graph *g, const struct spd_kernels *k, real *arena, int n, const unsigned char *on,
                        real *grad) {
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
            if (din) k->matmul(n, ld, m->n_out, m->n_in, m->value, 1, m->n_out, dout, din);
            if (m->grad >= 0) k->outer(n, ld, m->n_in, m->n_out, in, dout, grad + m->grad);
            break;
        }
        case SPD_COPY:
            if (din)
                for (int r = 0; r < dim; r++)
                    for (int s = 0; s < n; s++) din[(size_t)r * ld + s] += dout[(size_t)r * ld + s];
            break;
        case SPD_RELU:
            for (int r = 0; r < dim; r++) {
                const real *y = out + (size_t)r * ld, *d = dout + (size_t)r * ld;
                if (din)
                    for (int s = 0; s < n; s++) din[(size_t)r * ld + s] += y[s] > 0 ? d[s] : 0;
                if (op->bias_grad >= 0) {
                    real sum = 0;
                    for (int s = 0; s < n; s++) sum += y[s] > 0 ? d[s] : 0;
                    grad[op->bias_grad + r] += sum;
                }
            }
            break;
        case SPD_GATE:
            for (int c = 0; c < dim; c++) {
                int own = g->nodes[op->in].dim == dim && op->shape->d[0] == 1; /* else the module's whole input */
                k->gate_backward(n, ld, op->shape, op->params + (size_t)c * op->shape->n_params, own ? in + (size_t)c * ld : in,
                                 op->cache < 0 ? NULL : spd_value(g, arena, op->cache) + (size_t)c * op->shape->d[1] * ld,
                                 dout + (size_t)c * ld, grad + op->params_grad + (size_t)c * op->shape->n_params,
                                 din ? (own ? din + (size_t)c * ld : din) : NULL);
            }
            break;
        case SPD_SIGMOID:
            for (int r = 0; r < dim; r++)
                k->sigmoid_backward(n, op->sigmoid, in + (size_t)r * ld, dout + (size_t)r * ld, din + (size_t)r * ld);
            break;
        case SPD_ABS:
            for (int r = 0; r < dim; r++)
                for (int s = 0; s < n; s++)
                    din[(size_t)r * ld + s] += in[(size_t)r * ld + s] < 0   ? -dout[(size_t)r * ld + s]
                                               : in[(size_t)r * ld + s] > 0 ? dout[(size_t)r * ld + s]
                                                                            : 0;
            break;
        case SPD_MASK: {
            const real *gate = spd_value(g, arena, op->gate), *draw = spd_value(g, arena, op->draw);
            real *dgate = spd_gradient(g, arena, op->gate);
            for (int r = 0; r < dim; r++)
                k->mask_backward(n, in + (size_t)r * ld, gate + (size_t)r * ld, draw + (size_t)r * ld, dout + (size_t)r * ld,
                                 din + (size_t)r * ld, dgate + (size_t)r * ld);
            break;
        }
        }
    }
}
