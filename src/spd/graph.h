/* graph.h - what is computed for a chunk of samples: nodes (rows of numbers, one row per dimension), operations between them, and
 * the same backwards.
 *
 * A matrix is constant, trained (its gradient is a range of the gradient vector), or a product of two of those, formed once per
 * step. The products are the collapsed residual stream: x W_E V costs [features x C] per sample when W_E V is known, and the
 * stream's own width never appears. Their gradients are carried back to the factors after the sums over samples are complete.
 */
#ifndef SPD_GRAPH_H
#define SPD_GRAPH_H

#include "device.h"

#include "pva/error.h"

enum spd_op_kind { SPD_MATMUL, SPD_COPY, SPD_RELU, SPD_GATE, SPD_SIGMOID, SPD_ABS, SPD_MASK };

struct spd_node {
    int dim;
    int trained;            /* depends on something trained: has a gradient */
    size_t value, gradient; /* first rows in the arena */
};

struct spd_matrix {
    int n_in, n_out;
    const real *value; /* [n_in][n_out], on the device */
    ptrdiff_t grad;    /* first slot of the gradient vector; -1: constant */
    int left, right;   /* factors; -1: no product */
    real *own;         /* storage of a product */
};

struct spd_op {
    enum spd_op_kind kind;
    int in, out;         /* nodes */
    int matrix;          /* MATMUL: out += in * matrix */
    int group;           /* -1: always; else computed only when that group is on */
    const real *bias;    /* RELU: [dim] or NULL */
    ptrdiff_t bias_grad; /* its slot, or -1 */
    int gate, draw;      /* MASK: nodes of g and r */
    enum spd_sigmoid sigmoid;
    const struct spd_gate_shape
        *shape; /* GATE: one per component, from row c of `in` or, when its width is not 1, from all of `in` */
    const real *params;
    ptrdiff_t params_grad;
    int cache; /* GATE: node of [C * hidden] rows for what backward needs again, or -1 */
};

enum { SPD_MAX_GROUPS = 32 };

struct spd_graph {
    struct spd_device device; /* set before building */
    struct spd_node *nodes;
    struct spd_op *ops;
    struct spd_matrix *matrices;
    int n_nodes, n_ops, n_matrices;
    size_t n_rows;         /* of the arena: values and gradients */
    size_t n_values;       /* of those, values; the gradients follow */
    ptrdiff_t n_slots;     /* of the gradient vector */
    int chunk;             /* columns */
    struct pva_error late; /* of building */
};

void spd_graph_free(struct spd_graph *g);

/* Building. A failed allocation aborts the program: these are a few kilobytes, but for the products, whose failure ends in `err`
 * of spd_graph_finish. */
int spd_graph_node(struct spd_graph *g, int dim, int trained);
int spd_graph_matrix(struct spd_graph *g, int n_in, int n_out, const real *value, ptrdiff_t grad);
int spd_graph_product(struct spd_graph *g, int left, int right); /* the same pair gives the same matrix */
struct spd_op *spd_graph_op(struct spd_graph *g, enum spd_op_kind kind, int in, int out, int group);
int spd_graph_matmul(struct spd_graph *g, int in, int matrix, int group); /* a new node */
/* After the last node: lays out the arena. */
int spd_graph_finish(struct spd_graph *g, int chunk, struct pva_error *err);

/* Products of constants never change; the others are formed from the current parameters. part of n_parts: a share of the rows,
 * so that threads can divide the work without changing a sum. */
void spd_graph_form_products(struct spd_graph *g, int part, int n_parts);
/* Carries the products' gradients in `grad` on to their factors'. */
void spd_graph_return_products(const struct spd_graph *g, real *grad, int part, int n_parts);

static inline real *spd_value(const struct spd_graph *g, real *arena, int node) {
    return arena + g->nodes[node].value * (size_t)g->chunk;
}
static inline real *spd_gradient(const struct spd_graph *g, real *arena, int node) {
    return arena + g->nodes[node].gradient * (size_t)g->chunk;
}

/* n columns, a multiple of SPD_LANES. on[group] says which groups are computed. Inputs and draws are in the arena before. */
void spd_graph_forward(const struct spd_graph *g, real *arena, int n, const unsigned char *on);
/* Gradients of the output nodes are in the arena before, all other gradients zero (spd_graph_clear). Adds to grad [n_slots]. */
void spd_graph_clear(const struct spd_graph *g, real *arena);
void spd_graph_backward(const struct spd_graph *g, real *arena, int n, const unsigned char *on, real *grad);

#endif
