#include "linear_check.h"

#include <signal.h>
#include <sys/wait.h>

static void test_names(void) {
    struct pva_error err = {0};
    enum cpu_isa isa = CPU_AMX;
    CHECK_TEXT(cpu_isa_name(CPU_C), "c");
    CHECK_TEXT(cpu_isa_name(CPU_AVX512BF16), "avx512bf16");
    CHECK(cpu_isa_available(CPU_C));
    CHECK(cpu_isa_available(cpu_isa_best()));
    CHECK_OK(cpu_isa_parse("c", &isa, &err), err);
    CHECK_INT(isa, CPU_C);
    for (int i = 0; i < CPU_ISA_COUNT; i++) {
        struct pva_error e = {0};
        int status = cpu_isa_parse(cpu_isa_name((enum cpu_isa)i), &isa, &e);
        if (cpu_isa_available((enum cpu_isa)i)) {
            CHECK_OK(status, e);
            CHECK_INT(isa, i);
            CHECK(i <= (int)cpu_isa_best());
        } else {
            CHECK_INT(status, PVA_USAGE);
            CHECK_HAS(e.msg, cpu_isa_name(cpu_isa_best()));
        }
    }
    CHECK_INT(cpu_isa_parse("sse9", &isa, &err), PVA_USAGE);
    CHECK_HAS(err.msg, "sse9");
    CHECK_HAS(err.msg, "c, avx2, avx512, avx512bf16, amx");
}

/* The three of the FMA family give the same bits; NaN only as NaN. */
static void test_family(enum cpu_isa isa) {
    static const int64_t shapes[][3] = {{1, 50, 1},    {1, 70, 2304}, {2, 33, 47},     {3, 16, 1025}, {5, 49, 160}, {8, 20, 3000},
                                        {13, 65, 333}, {32, 48, 100}, {33, 100, 2311}, {64, 47, 96},  {130, 30, 75}};
    struct subject plain = {"c", NULL, CPU_C, 0}, other = {cpu_isa_name(isa), NULL, isa, 0};
    for (int t = 0; t < 3; t++) {
        if (isa > CPU_AVX512 && t == 2) continue; /* these multiply bfloat16 in hardware */
        for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
            struct shape d = {shapes[i][0], shapes[i][1], shapes[i][2], operand_types[t][0], operand_types[t][1]};
            struct fenced x = random_matrix(d.x_type, d.n, d.k, 20), w = random_matrix(d.w_type, d.m, d.k, 21);
            struct fenced y = fenced_new((size_t)(d.n * d.m) * 4), z = fenced_new((size_t)(d.n * d.m) * 4);
            run(&plain, &d, x.data, w.data, y.data, 1);
            run(&other, &d, x.data, w.data, z.data, 1);
            CHECK(memcmp(y.data, z.data, (size_t)(d.n * d.m) * 4) == 0);
            fenced_free(&x);
            fenced_free(&w);
            fenced_free(&y);
            fenced_free(&z);
        }
    }
}

/* The order itself, spelled out once more: lanes, then the tree. */
static void test_order(void) {
    enum { K = 77 };
    struct subject plain = {"c", NULL, CPU_C, 0};
    struct shape d = {1, 1, K, PVA_F32, PVA_F32};
    struct fenced x = random_matrix(PVA_F32, 1, K, 30), w = random_matrix(PVA_F32, 1, K, 31), y = fenced_new(4);
    float lane[16] = {0};
    for (int k = 0; k < K; k++) lane[k % 16] = fmaf(get(w.data, PVA_F32, k), get(x.data, PVA_F32, k), lane[k % 16]);
    float eight[8], four[4];
    for (int j = 0; j < 8; j++) eight[j] = lane[j] + lane[j + 8];
    for (int j = 0; j < 4; j++) four[j] = eight[j] + eight[j + 4];
    float expected = (four[0] + four[2]) + (four[1] + four[3]);
    run(&plain, &d, x.data, w.data, y.data, 1);
    CHECK(memcmp(y.data, &expected, 4) == 0);
    fenced_free(&x);
    fenced_free(&w);
    fenced_free(&y);
}

static void test_refusal(void) {
    pid_t child = fork();
    CHECK_FATAL(child >= 0);
    if (child == 0) {
        struct subject plain = {"c", NULL, CPU_C, 0};
        float data[4] = {0};
        int quiet = freopen("/dev/null", "w", stderr) != NULL; /* the message of the refusal */
        CHECK_FATAL(quiet);
        run(&plain, &(struct shape){1, 1, 1, PVA_BF16, PVA_F32}, data, data, data + 2, 1);
        _exit(0);
    }
    int status = 0;
    pid_t ended = waitpid(child, &status, 0);
    CHECK_FATAL(ended == child);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

int main(void) {
    test_names();
    test_refusal();
    test_order();
    for (int isa = 0; isa < CPU_ISA_COUNT; isa++) {
        const char *name = cpu_isa_name((enum cpu_isa)isa);
        if (!cpu_isa_available((enum cpu_isa)isa)) {
            CHECK_SKIP("%s: this machine does not have it", name);
            continue;
        }
        check_subject(&(struct subject){name, NULL, (enum cpu_isa)isa, isa == CPU_C});
        test_family((enum cpu_isa)isa);
    }
    cpu_scratch_free(&scratch);
    return check_report("cpu_linear");
}
