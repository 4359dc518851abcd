#include "pva/figure.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

const char *const pva_figure_colours[PVA_N_COLOURS] = {"#1b60fd", "#db7900", "#00a66a", "#c71f2c", "#b16ad2", "#646671"};

/* gnuplot writes black where it means "the text's colour"; in the file that is what the reader has set. */
const char pva_figure_style[] = "<style>svg{color:#1c1e22;font-family:system-ui,sans-serif}@media screen and (prefers-color-scheme:dark){svg{color:#e4e6ea}}</style>\n";

static int has_y(enum pva_series_kind kind) { return kind != PVA_SERIES_BAND; }
static int has_interval(enum pva_series_kind kind) { return kind == PVA_SERIES_INTERVALS || kind == PVA_SERIES_BAND; }
static int64_t n_of(const struct pva_series *s) { return s->kind == PVA_SERIES_LEVEL ? 1 : s->n; }

/* ---- the numbers ---- */

static void cell(FILE *out, const double *values, int64_t i) {
    fputc(',', out);
    if (values && !isnan(values[i])) fprintf(out, "%.12g", values[i]);
}

static void write_csv(FILE *out, const struct pva_figure *f) {
    fputs("series,x,y,low,high\n", out);
    for (int k = 0; k < f->n_series; k++) {
        const struct pva_series *s = &f->series[k];
        for (int64_t i = 0; i < n_of(s); i++) {
            fputc('"', out);
            for (const char *c = s->label ? s->label : ""; *c; c++) fputs(*c == '"' ? "\"\"" : (char[]){*c, 0}, out);
            fputc('"', out);
            cell(out, s->kind == PVA_SERIES_LEVEL ? NULL : s->x, i);
            cell(out, has_y(s->kind) ? s->y : NULL, i);
            cell(out, has_interval(s->kind) ? s->low : NULL, i);
            cell(out, has_interval(s->kind) ? s->high : NULL, i);
            fputc('\n', out);
        }
    }
}

/* ---- gnuplot's script ---- */

static void text(FILE *out, const char *s) {
    fputc('"', out);
    for (; s && *s; s++) {
        if (*s == '"' || *s == '\\') fputc('\\', out);
        fputc(*s == '\n' ? ' ' : *s, out);
    }
    fputc('"', out);
}

static void write_data(FILE *out, const struct pva_figure *f) {
    for (int k = 0; k < f->n_series; k++) {
        const struct pva_series *s = &f->series[k];
        if (s->kind == PVA_SERIES_LEVEL) continue;
        fprintf(out, "$s%d << EOD\n", k);
        for (int64_t i = 0; i < s->n; i++) {
            double y = has_y(s->kind) ? s->y[i] : s->low[i], low = has_interval(s->kind) ? s->low[i] : y, high = has_interval(s->kind) ? s->high[i] : y;
            if (isfinite(s->x[i]) && isfinite(y) && isfinite(low) && isfinite(high)) fprintf(out, "%.9g %.9g %.9g %.9g\n", s->x[i], y, low, high);
        }
        fputs("EOD\n", out);
    }
}

static void write_plot(FILE *out, const struct pva_figure *f) {
    fputs("plot ", out);
    for (int k = 0; k < f->n_series; k++) {
        const struct pva_series *s = &f->series[k];
        const char *colour = pva_figure_colours[s->colour], *dash = s->dashed ? " dt 2" : "";
        if (k) fputs(", ", out);
        if (s->kind == PVA_SERIES_LEVEL) fprintf(out, "%.9g with lines lw 1.5 lc rgb \"%s\"%s", s->y[0], colour, dash);
        else if (s->kind == PVA_SERIES_BAND) fprintf(out, "$s%d using 1:3:4 with filledcurves fs transparent solid 0.25 noborder lc rgb \"%s\"", k, colour);
        else if (s->kind == PVA_SERIES_INTERVALS) 
            fprintf(out, "$s%d using 1:3:(0):($4-$3) with vectors nohead lw 1.5 lc rgb \"%s\" notitle, $s%d using 1:2 with points pt 7 ps 0.6 lc rgb \"%s\"", k, colour,
                    k, colour);
        else if (s->kind == PVA_SERIES_POINTS) fprintf(out, "$s%d using 1:2 with points pt 7 ps 0.6 lc rgb \"%s\"", k, colour);
        else if (s->kind == PVA_SERIES_DOTS) fprintf(out, "$s%d using 1:2 with points pt 7 ps 0.35 lc rgb \"%s\"", k, colour);
        else if (s->kind == PVA_SERIES_BARS) fprintf(out, "$s%d using 1:2 with boxes fs solid noborder lc rgb \"%s\"", k, colour);
        else {
            const char *with = s->kind == PVA_SERIES_LINE ? "lines" : s->kind == PVA_SERIES_STEPS ? "steps" : "linespoints pt 7 ps 0.4";
            fprintf(out, "$s%d using 1:2 with %s lw 2 lc rgb \"%s\"%s", k, with, colour, dash);
        }
        if (s->label && *s->label) fputs(" title ", out), text(out, s->label);
        else fputs(" notitle", out);
    }
    fputc('\n', out);
}

/* An empty series would be gnuplot's error; a figure without any point says so instead. */
static int n_points(const struct pva_series *s) {
    int n = s->kind == PVA_SERIES_LEVEL && isfinite(s->y[0]);
    for (int64_t i = 0; !n && i < s->n; i++) n = isfinite(s->x[i]) && isfinite(has_y(s->kind) ? s->y[i] : s->low[i]);
    return n;
}

static int has_bars(const struct pva_figure *f) {
    int n = 0;
    for (int k = 0; k < f->n_series; k++) n += f->series[k].kind == PVA_SERIES_BARS;
    return n > 0;
}

/* The key below the plot: how many entries fit beside each other, and so how much higher the picture is. Letters are about 7.5 wide in the picture's units. */
static void key_layout(const struct pva_figure *f, int width, int *columns, int *rows) {
    int n = 0, longest = 0;
    for (int k = 0; k < f->n_series; k++) {
        if (!f->series[k].label) continue;
        int letters = (int)strlen(f->series[k].label);
        if (letters > longest) longest = letters;
        n++;
    }
    *columns = (int)((width - 80) / (60 + 7.5 * longest));
    if (*columns < 1) *columns = 1;
    if (*columns > n) *columns = n;
    *rows = n ? (n + *columns - 1) / *columns : 0;
}

/* Names below the axis, slanted where they would meet. */
static void write_names(FILE *out, const struct pva_figure *f, int width) {
    double letters = 0;
    for (int i = 0; i < f->n_x_names; i++) letters += (double)strlen(f->x_names[i]) + 1;
    fprintf(out, "set xtics font \"sans-serif,13\"%s (", letters * 7 > width - 90 ? " rotate by -35" : "");
    for (int i = 0; i < f->n_x_names; i++) {
        if (i) fputs(", ", out);
        text(out, f->x_names[i]);
        fprintf(out, " %d", i);
    }
    fputs(")\n", out);
    if (!f->x_range) fprintf(out, "set xrange [-0.6:%.9g]\n", f->n_x_names - 0.4);
}

static void write_script(FILE *out, const struct pva_figure *f) {
    struct pva_figure drawn = *f;
    struct pva_series *kept = calloc((size_t)f->n_series + 1, sizeof *kept);
    int width = f->width ? f->width : 460, height = f->height ? f->height : 320, columns, rows;
    drawn.series = kept, drawn.n_series = 0;
    for (int k = 0; kept && k < f->n_series; k++)
        if (n_points(&f->series[k])) kept[drawn.n_series++] = f->series[k];
    key_layout(&drawn, width, &columns, &rows);
    fprintf(out, "set terminal svg size %d,%d dynamic noenhanced font \"sans-serif,14\" background \"#ffffff00\"\n", width, height + 20 * rows);
    fputs("set encoding utf8\nset border 3\nset tics nomirror out\nset grid lc rgb \"#8a8f98\" lw 0.3\nset boxwidth 0.8 relative\nset samples 2\n", out);
    if (rows) fprintf(out, "set key below center horizontal Left reverse samplen 2 height 0.4 maxcols %d\n", columns);
    else fputs("unset key\n", out);
    if (f->title) fputs("set title ", out), text(out, f->title), fputc('\n', out);
    if (f->x_label) fputs("set xlabel ", out), text(out, f->x_label), fputc('\n', out);
    if (f->y_label) fputs("set ylabel ", out), text(out, f->y_label), fputc('\n', out);
    if (f->x_logarithmic) fputs("set logscale x\nset format x \"%g\"\n", out); /* 1e-08, not 0.00000001 */
    if (f->y_logarithmic) fputs("set logscale y\nset format y \"%g\"\n", out);
    if (f->x_range) fprintf(out, "set xrange [%.9g:%.9g]\n", f->x_range[0], f->x_range[1]);
    if (f->y_range) fprintf(out, "set yrange [%.9g:%.9g]\n", f->y_range[0], f->y_range[1]);
    else if (has_bars(f) && !f->y_logarithmic) fputs("set yrange [0:*]\n", out); /* a bar's length is its value */
    if (f->x_names) write_names(out, f, width);
    if (drawn.n_series) {
        write_data(out, &drawn);
        write_plot(out, &drawn);
    } else fputs("set label \"no data\" at screen 0.5,0.5 center\nset xrange [0:1]\nset yrange [0:1]\nplot NaN notitle\n", out);
    free(kept);
}

/* ---- running it ---- */

/* Feeds the script, gathers both outputs. The three pipes are served in turn, so that none fills while another is waited for. */
static int run_gnuplot(const char *script, size_t n_script, char **svg, size_t *n_svg, struct pva_error *err) {
    int in[2], out[2], said[2];
    char complaint[400] = "";
    size_t n_complaint = 0, fed = 0;
    pid_t child;
    if (pipe2(in, O_CLOEXEC) || pipe2(out, O_CLOEXEC) || pipe2(said, O_CLOEXEC)) return pva_fail(err, PVA_IO, "no pipe for gnuplot: %s", strerror(errno));
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, in[0], 0);
    posix_spawn_file_actions_adddup2(&actions, out[1], 1);
    posix_spawn_file_actions_adddup2(&actions, said[1], 2);
    char *const arguments[] = {"gnuplot", "-", NULL};
    int status = posix_spawnp(&child, "gnuplot", &actions, NULL, arguments, environ);
    posix_spawn_file_actions_destroy(&actions);
    close(in[0]), close(out[1]), close(said[1]);
    if (status) {
        close(in[1]), close(out[0]), close(said[0]);
        return pva_fail(err, PVA_IO, "gnuplot cannot be started (%s): the figures need it (Debian: gnuplot-nox)", strerror(status));
    }
    fcntl(in[1], F_SETFL, O_NONBLOCK);
    struct sigaction ignore = {.sa_handler = SIG_IGN}, before;
    sigaction(SIGPIPE, &ignore, &before); /* gnuplot may leave before it has read all */
    FILE *memory = open_memstream(svg, n_svg);
    struct pollfd p[3] = {{in[1], POLLOUT, 0}, {out[0], POLLIN, 0}, {said[0], POLLIN, 0}};
    while (memory && (p[1].fd >= 0 || p[2].fd >= 0)) {
        char buffer[1 << 16];
        if (poll(p, 3, 60000) == 0) kill(child, SIGKILL);
        if (p[0].fd >= 0 && p[0].revents) {
            ssize_t n = write(p[0].fd, script + fed, n_script - fed);
            if (n > 0) fed += (size_t)n;
            if (fed == n_script || (n < 0 && errno != EAGAIN && errno != EINTR)) close(p[0].fd), p[0].fd = -1;
        }
        for (int i = 1; i < 3; i++) {
            if (p[i].fd < 0 || !p[i].revents) continue;
            ssize_t n = read(p[i].fd, buffer, sizeof buffer);
            if (n <= 0) close(p[i].fd), p[i].fd = -1;
            else if (i == 1) fwrite(buffer, 1, (size_t)n, memory);
            else if (n_complaint < sizeof complaint - 1) n_complaint += (size_t)snprintf(complaint + n_complaint, sizeof complaint - n_complaint, "%.*s", (int)n, buffer);
        }
    }
    for (int i = 0; i < 3; i++)
        if (p[i].fd >= 0) close(p[i].fd);
    waitpid(child, &status, 0);
    sigaction(SIGPIPE, &before, NULL);
    if (!memory || fclose(memory)) return pva_fail(err, PVA_IO, "out of memory");
    if (status || *n_svg == 0) {
        for (char *c = complaint; *c; c++)
            if (*c == '\n') *c = ' ';
        return pva_fail(err, PVA_IO, "gnuplot failed: %s", complaint);
    }
    return PVA_OK;
}

static void escape(FILE *out, const char *s) {
    for (; *s; s++) fputs(*s == '<' ? "&lt;" : *s == '>' ? "&gt;" : *s == '&' ? "&amp;" : (char[]){*s, 0}, out);
}

/* The picture without gnuplot's colours for text and without its own mark; its title is the figure's. */
static void write_svg(FILE *out, const char *svg, const char *title) {
    static const char *const replaced[][2] = {{"color=\"black\"", "color=\"inherit\""}, {"stroke=\"black\"", "stroke=\"currentColor\""}, {"stroke='black'", "stroke='currentColor'"}, {"fill=\"black\"", "fill=\"currentColor\""}};
    static const char mark[] = "<title>Gnuplot</title>\n";
    const char *canvas = strstr(svg, "<g id=\"gnuplot_canvas\">");
    for (const char *c = svg; *c;) {
        if (c == canvas) fputs(pva_figure_style, out);
        size_t skip = 0;
        for (size_t i = 0; i < sizeof replaced / sizeof *replaced && !skip; i++)
            if (!strncmp(c, replaced[i][0], strlen(replaced[i][0]))) skip = strlen(replaced[i][0]), fputs(replaced[i][1], out);
        if (!skip && !strncmp(c, mark, sizeof mark - 1)) {
            skip = sizeof mark - 1;
            if (title) fputs("<title>", out), escape(out, title), fputs("</title>\n", out);
        }
        if (!skip && !strncmp(c, "<desc>", 6)) {
            const char *end = strstr(c, "</desc>\n");
            if (end) skip = (size_t)(end - c) + 8;
        }
        if (!skip) fputc(*c, out), skip = 1;
        c += skip;
    }
}

static int publish(const char *directory, const char *name, const char *ending, const struct pva_figure *figure, const char *svg, struct pva_error *err) {
    char path[4096], partial[4200];
    snprintf(path, sizeof path, "%s/%s.%s", directory, name, ending);
    snprintf(partial, sizeof partial, "%s.partial", path);
    FILE *out = fopen(partial, "we");
    if (!out) return pva_fail(err, PVA_IO, "%s: %s", partial, strerror(errno));
    if (svg) write_svg(out, svg, figure->title);
    else write_csv(out, figure);
    int bad = fflush(out) || ferror(out);
    bad |= fclose(out) != 0;
    if (bad || rename(partial, path)) {
        pva_fail(err, PVA_IO, "%s: cannot be written: %s", path, strerror(errno));
        unlink(partial);
    }
    return err->code;
}

int pva_figure_write(const struct pva_figure *figure, const char *directory, const char *name, struct pva_error *err) {
    char *script = NULL, *svg = NULL;
    size_t n_script = 0, n_svg = 0;
    if (publish(directory, name, "csv", figure, NULL, err)) return err->code;
    FILE *memory = open_memstream(&script, &n_script);
    if (!memory) return pva_fail(err, PVA_IO, "out of memory");
    write_script(memory, figure);
    if (fclose(memory)) pva_fail(err, PVA_IO, "out of memory");
    else if (!run_gnuplot(script, n_script, &svg, &n_svg, err)) publish(directory, name, "svg", figure, svg, err);
    free(script), free(svg);
    return err->code;
}
