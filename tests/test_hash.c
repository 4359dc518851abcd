/* SHA-256 against the published examples, in any pieces, by every way of computing it. */
#include "check.h"
#include "hash_blocks.h"
#include "pva/hash.h"

#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* FIPS 180-2 appendix B and the examples NIST publishes with FIPS 180-4; the empty message and the longer ones from its test
 * vectors. */
static const struct {
    const char *text;
    const char *digest;
} examples[] = {
    {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
    {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
    {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
     "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
    {"abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmnoijklmnopjklmnopqklmnopqrlmnopqrsmnopqrstnopqrstu",
     "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1"},
};
#define MILLION_A "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"

static uint8_t *noise(size_t n) {
    uint8_t *p = malloc(n);
    CHECK_FATAL(p);
    uint64_t x = 88172645463325252u;
    for (size_t i = 0; i < n; i++) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        p[i] = (uint8_t)(x >> 32);
    }
    return p;
}

static void in_pieces(const uint8_t *data, size_t n, size_t piece, char hex[PVA_SHA256_HEX]) {
    struct pva_sha256 h;
    uint8_t digest[PVA_SHA256_BYTES];
    pva_sha256_start(&h);
    for (size_t at = 0; at < n; at += piece) pva_sha256_add(&h, data + at, n - at < piece ? n - at : piece);
    pva_sha256_finish(&h, digest);
    pva_sha256_hex(digest, hex);
}

static void published(void) {
    char hex[PVA_SHA256_HEX];
    for (size_t i = 0; i < sizeof examples / sizeof *examples; i++) {
        pva_sha256_text(examples[i].text, strlen(examples[i].text), hex);
        CHECK_TEXT(hex, examples[i].digest);
    }
    size_t n = 1000000;
    uint8_t *a = malloc(n);
    CHECK_FATAL(a);
    memset(a, 'a', n);
    pva_sha256_text(a, n, hex);
    CHECK_TEXT(hex, MILLION_A);
    const size_t pieces[] = {1, 3, 7, 55, 63, 64, 65, 127, 128, 129, 1000, 4096, 999999};
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) {
        in_pieces(a, n, pieces[i], hex);
        CHECK_TEXT(hex, MILLION_A);
    }
    free(a);
}

/* Every length around the block and padding borders, whole and cut at every place; one changed bit changes the digest. */
static void lengths(void) {
    enum { N = 300 };
    uint8_t *data = noise(N);
    char whole[PVA_SHA256_HEX], cut[PVA_SHA256_HEX];
    for (size_t n = 0; n <= N; n++) {
        pva_sha256_text(data, n, whole);
        for (size_t at = 0; at <= n; at += n < 140 ? 1 : 17) {
            struct pva_sha256 h;
            uint8_t digest[PVA_SHA256_BYTES];
            pva_sha256_start(&h);
            pva_sha256_add(&h, data, at);
            pva_sha256_add(&h, NULL, 0);
            pva_sha256_add(&h, data + at, n - at);
            pva_sha256_finish(&h, digest);
            pva_sha256_hex(digest, cut);
            CHECK_TEXT(cut, whole);
        }
        if (n) {
            data[n / 2] ^= 1;
            pva_sha256_text(data, n, cut);
            data[n / 2] ^= 1;
            CHECK(strcmp(cut, whole) != 0);
        }
    }
    free(data);
}

#if defined(__x86_64__)
#include <immintrin.h>

/* The three SHA instructions as the manual defines them, lane 0 the lowest. */
static uint32_t ror(uint32_t x, int n) { return x >> n | x << (32 - n); }
static uint32_t small0(uint32_t x) { return ror(x, 7) ^ ror(x, 18) ^ x >> 3; }
static uint32_t small1(uint32_t x) { return ror(x, 17) ^ ror(x, 19) ^ x >> 10; }

static __m128i rounds2(__m128i cdgh, __m128i abef, __m128i wk) {
    uint32_t s[4], r[4], k[4];
    _mm_storeu_si128((__m128i *)s, cdgh);
    _mm_storeu_si128((__m128i *)r, abef);
    _mm_storeu_si128((__m128i *)k, wk);
    uint32_t a = r[3], b = r[2], c = s[3], d = s[2], e = r[1], f = r[0], g = s[1], h = s[0];
    for (int i = 0; i < 2; i++) {
        uint32_t t1 = h + (ror(e, 6) ^ ror(e, 11) ^ ror(e, 25)) + ((e & f) ^ (~e & g)) + k[i];
        uint32_t t2 = (ror(a, 2) ^ ror(a, 13) ^ ror(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
        h = g, g = f, f = e, e = d + t1, d = c, c = b, b = a, a = t1 + t2;
    }
    return _mm_set_epi32((int)a, (int)b, (int)e, (int)f);
}

static __m128i msg1(__m128i low, __m128i high) {
    uint32_t w[8], out[4];
    _mm_storeu_si128((__m128i *)w, low);
    _mm_storeu_si128((__m128i *)(w + 4), high);
    for (int i = 0; i < 4; i++) out[i] = w[i] + small0(w[i + 1]);
    return _mm_loadu_si128((const __m128i *)out);
}

static __m128i msg2(__m128i sum, __m128i last) {
    uint32_t w[4], l[4];
    _mm_storeu_si128((__m128i *)w, sum);
    _mm_storeu_si128((__m128i *)l, last);
    w[0] += small1(l[2]), w[1] += small1(l[3]), w[2] += small1(w[0]), w[3] += small1(w[1]);
    return _mm_loadu_si128((const __m128i *)w);
}

#pragma GCC push_options
#pragma GCC target("ssse3")
#define ROUNDS2(cdgh, abef, wk) rounds2(cdgh, abef, wk)
#define MSG1(a, b) msg1(a, b)
#define MSG2(a, b) msg2(a, b)
#define BLOCKS_NAME blocks_by_definition
#include "hash_rounds.h"
#pragma GCC pop_options
#endif

/* All ways of computing blocks agree, from any state. */
static void ways(void) {
    enum { MOST = 40 };
    uint8_t *data = noise(64 * MOST + 1);
    for (size_t n = 0; n <= MOST; n++) {
        uint32_t portable[8], other[8], start[8];
        memcpy(start, data + n, sizeof start);
        memcpy(portable, start, sizeof start);
        sha256_blocks_portable(portable, data + 1, n); /* + 1: not aligned */
#if defined(__x86_64__)
        if (__builtin_cpu_supports("ssse3")) {
            memcpy(other, start, sizeof start);
            blocks_by_definition(other, data + 1, n);
            CHECK(memcmp(other, portable, sizeof other) == 0);
        }
#endif
        if (sha256_has_instructions()) {
            memcpy(other, start, sizeof start);
            sha256_blocks_instructions(other, data + 1, n);
            CHECK(memcmp(other, portable, sizeof other) == 0);
        }
        CHECK((memcmp(portable, start, sizeof start) == 0) == (n == 0));
    }
    if (!sha256_has_instructions())
        CHECK_SKIP("SHA instructions: this processor has none; their order was checked by their definition");
    CHECK_TEXT(pva_sha256_method(), sha256_has_instructions() ? "sha-ni" : "portable");
    free(data);
}

static void files(void) {
    char path[] = "hash-test-XXXXXX", hex[PVA_SHA256_HEX], expected[PVA_SHA256_HEX];
    struct pva_error err = {0};
    uint64_t n_bytes = 7;
    size_t n = (3u << 20) + 17;
    uint8_t *data = noise(n);
    int fd = mkstemp(path);
    CHECK_FATAL(fd >= 0);
    CHECK_OK(pva_sha256_file(path, hex, &n_bytes, &err), err);
    CHECK_TEXT(hex, examples[0].digest);
    CHECK_INT(n_bytes, 0);
    CHECK_FATAL(write(fd, data, n) == (ssize_t)n);
    close(fd);
    pva_sha256_text(data, n, expected);
    CHECK_OK(pva_sha256_file(path, hex, &n_bytes, &err), err);
    CHECK_TEXT(hex, expected);
    CHECK_INT(n_bytes, n);
    unlink(path);
    CHECK_INT(pva_sha256_file(path, hex, NULL, &err), PVA_INPUT);
    CHECK_HAS(err.msg, path);
    CHECK_TEXT(hex, "");
    err.code = 0;
    CHECK_INT(pva_sha256_file(".", hex, NULL, &err), PVA_INPUT);
    CHECK_HAS(err.msg, "not a regular file");
    err.code = 0;
    CHECK_FATAL(mkfifo(path, 0600) == 0); /* must not wait for a writer */
    CHECK_INT(pva_sha256_file(path, hex, NULL, &err), PVA_INPUT);
    unlink(path);
    free(data);
}

static double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void speed(const char *name, void (*blocks)(uint32_t *, const uint8_t *, size_t)) {
    enum { N = 1 << 20 };
    uint8_t *data = noise(N);
    uint32_t state[8] = {1};
    double best = 1e9;
    for (int i = 0; i < 15; i++) {
        double t = seconds();
        blocks(state, data, N / 64);
        t = seconds() - t;
        if (t < best) best = t;
    }
    printf("%s: %.3f GB/s (best of 15 x 1 MiB; state %08x)\n", name, N / best * 1e-9, state[0]);
    free(data);
}

int main(void) {
    published();
    lengths();
    ways();
    files();
    speed("portable", sha256_blocks_portable);
    if (sha256_has_instructions()) speed("sha-ni", sha256_blocks_instructions);
    return check_report("test_hash");
}
