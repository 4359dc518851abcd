/* spd_device.h - what a decomposition (spd.h) asks of the device that computes it: shapes and parameters of its operations.
 *
 * A chunk of samples lies as [dimension][sample]: row r of a node is `ld` numbers long, the first n of them in use, n a multiple of SPD_LANES. Sums over
 * samples are kept in SPD_LANES partial sums (sample s belongs to lane s % SPD_LANES), each in the order of the samples, and joined in one tree: lane l with
 * l + 8, then 4, 2, 1. Every device that keeps to it has the same bits, but for exp and pow.
 */
#ifndef PVA_SPD_DEVICE_H
#define PVA_SPD_DEVICE_H

#ifdef __cplusplus
extern "C" {
#endif

#ifndef PVA_SPD_REAL
#define PVA_SPD_REAL float /* the test of the gradients compiles the CPU's side in double */
#endif
typedef PVA_SPD_REAL pva_spd_real;

enum { SPD_LANES = 16 };

enum spd_sigmoid { SPD_NORMAL, SPD_HARD, SPD_LEAKY_HARD, SPD_UPPER_LEAKY_HARD, SPD_LOWER_LEAKY_HARD, SPD_SWISH_HARD };

/* A small network per component: widths d[0] -> d[1] -> ... -> d[n] = 1, exact GELU between. Its numbers lie together: for each
 * layer the matrix [d[l]][d[l+1]], then the bias [d[l+1]]. */
enum { SPD_MAX_GATE_LAYERS = 6, SPD_MAX_GATE_WIDTH = 1024 };
struct spd_gate_shape {
    int n_layers; /* matrices */
    int d[SPD_MAX_GATE_LAYERS + 1];
    int n_params; /* per component */
};

struct spd_adam {
    pva_spd_real lr, beta1, beta2, eps, decay; /* decay: p *= 1 - lr * decay first (AdamW) */
    pva_spd_real correction1, correction2;     /* 1 - beta^t */
};

#ifdef __cplusplus
}
#endif
#endif
