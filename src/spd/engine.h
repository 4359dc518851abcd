/* engine.h - one decomposition in memory: components, gates, losses and their gradients over a batch.
 *
 * A batch is cut into SPD_SHARES contiguous shares, each with its own gradient; shares are joined in order. So neither threads
 * nor ranks change a bit.
 */
#ifndef SPD_ENGINE_H
#define SPD_ENGINE_H

#include "data.h"
#include "graph.h"

#include "pva/spd.h"
#include "pva/spd_device.h"

enum { SPD_SHARES = 8 };

/* A term of the loss that compares an output with the target's. */
enum spd_term {
    SPD_RECON,
    SPD_STOCHASTIC_RECON,
    SPD_RECON_LAYERWISE,
    SPD_STOCHASTIC_RECON_LAYERWISE,
    SPD_OUT_RECON,
    SPD_N_TERMS
};

struct spd_module {
    char path[48];
    int layer; /* of the target */
    int d_in, d_out;
    int tied_to;                   /* module that shares storage (V2 = U1^T, U2 = V1^T), or -1; set in the later of the two */
    struct spd_gate_shape shape;   /* of its gates */
    const real *weight;            /* of the target, on the device */
    size_t v, u, gate;             /* slots: V [d_in][C], U [C][d_out], gates [C][shape.n_params] */
    size_t norms;                  /* slots: sums of importance^p per component, for the schatten norm */
    int h, raw, lower, importance; /* nodes; the last two may be one for the plain sigmoids */
};

struct spd_group { /* one output to compare */
    enum spd_term term;
    double share; /* weight within its term */
    double coeff; /* of the term; 0: only reported */
    int output;   /* node */
};

struct spd_draw { /* one block of uniform draws: a node of C rows */
    int node, module, use, group;
};

/* What a pass over a batch reports. */
struct spd_sums {
    double terms[SPD_N_TERMS];              /* mean squared error, weighted by share */
    double importance[PVA_SPD_MAX_MODULES]; /* mean over samples of sum_c (g + 1e-12)^p */
    double schatten;
    double *active; /* [n_modules][C]: weight of samples with g > threshold */
};

/* What ranks exchange about one share, after its gradient. */
struct spd_numbers {
    double terms[SPD_MAX_GROUPS], importance[PVA_SPD_MAX_MODULES], schatten;
};

struct spd_engine {
    const struct pva_spd_config *config;
    const struct pva_spd_target *target;
    const struct spd_kernels *kernels;
    struct spd_graph graph;
    struct spd_data data;
    int C, n_modules, n_groups, n_draws, shortcuts;
    int most_threads, threads;      /* allowed; used now, which may change between passes */
    int order[PVA_SPD_MAX_MODULES]; /* modules in the order of the patterns, as they are reported */
    struct spd_module modules[PVA_SPD_MAX_MODULES];
    struct spd_group groups[SPD_MAX_GROUPS];
    struct spd_draw *draws;
    int x, target_out, zeros, ones; /* nodes */
    size_t n_params;
    real *params, *m, *v; /* [n_params], on the host: on another device's engine as spd_engine_fetch left them */
    struct {
        real *params, *m, *v; /* the device's; on the host the same */
        real *constants;      /* the target's matrices as `real` */
        real *grads;          /* [SPD_SHARES][n_slots]; the first becomes the sum */
        real *arenas;         /* [threads] */
        real *rest;           /* V U - W of one module */
        uint32_t *samples;    /* [chunk] of a chunk, and its weights; on the host they are where they were made */
        real *weights;
        struct spd_numbers *numbers; /* [SPD_SHARES] */
        double *active;              /* [SPD_SHARES][n_modules * C] */
        double *scalars;             /* [SPD_SHARES]: sums of one moment */
    } on;
    real *batches; /* [threads]: a share's inputs */
    size_t batch_capacity;
    real *staged;                /* a node on its way to or from the device; NULL on the host */
    struct spd_numbers *numbers; /* on the host */
    double *active;
    struct pva_error late; /* what failed where nothing could be returned */
};

/* be: where to compute, with its operations ops->spd; NULL: on the processor. It stays open until spd_engine_free. */
int spd_engine_create_on(const struct pva_backend_ops *ops, struct pva_backend *be, const struct pva_spd_config *c,
                         const struct pva_spd_target *t, int threads, int shortcuts, struct spd_engine **out,
                         struct pva_error *err);
static inline int spd_engine_create(const struct pva_spd_config *c, const struct pva_spd_target *t, int threads, int shortcuts,
                                    struct spd_engine **out, struct pva_error *err) {
    return spd_engine_create_on(NULL, NULL, c, t, threads, shortcuts, out, err);
}
void spd_engine_free(struct spd_engine **e);

/* V, U and gates at the start: init_from_target_weight of the reference. */
void spd_engine_initialise(struct spd_engine *e, uint64_t seed);

/* Parameters and moments from the host to the device, after they were set there, and back, before they are read. Nothing to do on
 * the host itself. */
void spd_engine_place(struct spd_engine *e);
int spd_engine_fetch(struct spd_engine *e, struct pva_error *err);

/* What one pass computes. */
struct spd_pass {
    uint64_t seed;
    uint32_t step;
    enum spd_stream stream;
    uint32_t first_sample; /* of the batch: evaluation batches of one step follow each other */
    int batch;
    double p;      /* exponent of the importance loss */
    int gradients; /* 1: with gradients; 0: values only */
    int report;    /* 1: also the terms with coefficient 0; -1: importances only, no outputs */
    /* Unless NULL, called for each chunk by the thread that computed it: rows of g_lower of module m with weights. */
    void (*seen)(void *user, int share, int module, int n, int ld, const real *lower, const real *weights);
    void *user;
};
/* Gradients of all terms go to e->on.grads[0] ... except those that need no samples (spd_engine_weights_loss). */
int spd_engine_pass(struct spd_engine *e, const struct spd_pass *p, const struct pva_spd_ranks *ranks, struct spd_sums *out,
                    struct pva_error *err);

/* Faithfulness; with gradients != 0 also carries the products' and the schatten norm's gradients to V and U. Returns its value.
 */
double spd_engine_weights_loss(struct spd_engine *e, int gradients);

/* One AdamW step with e->on.grads[0]; `count` is the number of steps before it. Tied modules take both updates. Returns the
 * gradient's norm. */
double spd_engine_update(struct spd_engine *e, double lr, int64_t count);

double spd_engine_gradient_norm(struct spd_engine *e);

/* Importances of given inputs x [n][n_features]: lower and upper [n][C] per module, as double. */
int spd_engine_importances(struct spd_engine *e, int n, const double *x, double **lower, double **upper, struct pva_error *err);

#endif
