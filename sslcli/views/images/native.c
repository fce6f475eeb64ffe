/* The image pipeline of image.py for a processor, one sample at a time: while a picture is in the nearest cache, all that
 * is to be done to it is done. Bit for bit what the tensor code makes of it (resample.py, colour.py), whose comments say
 * why the sums are over whole numbers; nothing may be reordered or contracted that is not such a sum. native.py compiles
 * this file and calls it; it needs no header but the standard ones. */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum code { BRIGHTNESS, CONTRAST, SATURATION, HUE, GRAYSCALE, SOLARIZE, INTENSITY, MIRROR, UPSIDE_DOWN, BLUR };

struct step {
    int32_t code, count;  /* values a sample */
    const uint8_t *on;    /* a sample each; NULL: all */
    const float *values;  /* (samples, count) */
};

struct program {
    int32_t channels, height, width; /* of a raw sample */
    int32_t out_height, out_width;
    int32_t radius;       /* of the resampling filter: 1 bilinear, 2 bicubic; 0: the whole sample as it is */
    const double *region; /* (samples, 4): top, left, height, width */
    const uint8_t *flip;  /* mirrored by the resampling; NULL: none */
    const float *shift, *factor; /* of the normalisation, a channel each */
    int32_t steps;
    const struct step *step;
};

#define BLOCK 512 /* pixels that go through several steps together */
static const float LUMA_R = 0.2989, LUMA_G = 0.587, LUMA_B = 0.114;

static inline float unit(float x) { return x < 0 ? 0 : x > 1 ? 1 : x; }
static inline float luma(float r, float g, float b) { return (r * LUMA_R + g * LUMA_G) + b * LUMA_B; }

/* Eight numbers at any address. */
typedef float eight __attribute__((vector_size(32), aligned(4), may_alias));

/* to[j] = the sum over k of from[k][j] * weight[k], of whole numbers: any order gives the same. */
static void weigh(float *to, const float *const *from, const float *weight, int taps, int n) {
    int j = 0;
    for (; j + 32 <= n; j += 32) {
        eight a = {0}, b = {0}, c = {0}, d = {0};
        for (int k = 0; k < taps; k++) {
            const eight *in = (const eight *)(from[k] + j);
            const float w = weight[k];
            a += in[0] * w, b += in[1] * w, c += in[2] * w, d += in[3] * w;
        }
        eight *out = (eight *)(to + j);
        out[0] = a, out[1] = b, out[2] = c, out[3] = d;
    }
    for (; j + 8 <= n; j += 8) {
        eight a = {0};
        for (int k = 0; k < taps; k++) a += *(const eight *)(from[k] + j) * weight[k];
        *(eight *)(to + j) = a;
    }
    for (; j < n; j++) {
        float sum = 0;
        for (int k = 0; k < taps; k++) sum += from[k][j] * weight[k];
        to[j] = sum;
    }
}

/* ------------------------------------------------------------------------------------------------ crop and resize */

static double bell(double d, int radius) {
    if (radius == 1) return d < 1 ? 1 - d : 0;
    if (d < 1) return (d * 1.5 - 2.5) * d * d + 1;
    return d < 2 ? ((d * -0.5 + 2.5) * d - 4) * d + 2 : 0;
}

static int taps_of(int size, int out, int radius) {
    double widest = (double)size / out;
    int taps = (int)ceil(2 * radius * (widest > 1 ? widest : 1));
    return taps < size ? taps : size;
}

/* resample.py's `weights` for one axis of one sample: where each output pixel begins to read, and its `taps` weights. */
static void weights(double start, double length, int size, int out, int radius, int flip, int taps, int *first,
                    float *weight) {
    double scale = length / out, widen = scale > 1 ? scale : 1;
    for (int i = 0; i < out; i++, weight += taps) {
        double w[taps], total = 0, sum = 0;
        double centre = (flip ? out - (i + 0.5) : i + 0.5) * scale + start;
        double from = floor(centre - radius * widen + 0.5);
        from = from < 0 ? 0 : from > size - taps ? size - taps : from;
        for (int t = 0; t < taps; t++) {
            double pixel = from + t;
            w[t] = pixel >= start && pixel < start + length ? rint(bell(fabs(pixel + 0.5 - centre) / widen, radius) * 0x1p30) : 0;
            total += w[t];
        }
        int largest = 0;
        for (int t = 0; t < taps; t++) {
            w[t] = rint(w[t] / total * 4096);
            sum += w[t];
            if (w[t] > w[largest]) largest = t;
        }
        w[largest] += 4096 - sum;
        first[i] = (int)from;
        for (int t = 0; t < taps; t++) weight[t] = (float)w[t];
    }
}

/* A raw sample's region -> x (channels, out_height, out_width) in 0..1. */
static void crop_resize(const struct program *p, const double *region, int flip, const uint8_t *raw, float *x, float *room) {
    int height = p->height, width = p->width, rows = p->out_height, columns = p->out_width;
    int down = taps_of(height, rows, p->radius), along = taps_of(width, columns, p->radius);
    int *first_row = (int *)room, *first_column = first_row + rows;
    float *row_weight = (float *)(first_column + columns), *column_weight = row_weight + (size_t)rows * down;
    float *line = column_weight + (size_t)columns * along, *middle = line + width;
    weights(region[0], region[2], height, rows, p->radius, 0, down, first_row, row_weight);
    weights(region[1], region[3], width, columns, p->radius, flip, along, first_column, column_weight);
    int top = height, bottom = 0; /* rows that are read */
    for (int i = 0; i < rows; i++) {
        if (first_row[i] < top) top = first_row[i];
        if (first_row[i] + down > bottom) bottom = first_row[i] + down;
    }
    const float scale = 0x1p-15 / 255;
    for (int c = 0; c < p->channels; c++, raw += (size_t)height * width, x += (size_t)rows * columns) {
        for (int r = top; r < bottom; r++) {
            float *to = middle + (size_t)r * columns;
            for (int j = 0; j < width; j++) line[j] = raw[(size_t)r * width + j];
            if (along == 4) {
                for (int j = 0; j < columns; j++) {
                    const float *in = line + first_column[j], *w = column_weight + 4 * j;
                    to[j] = (in[0] * w[0] + in[1] * w[1]) + (in[2] * w[2] + in[3] * w[3]);
                }
            } else {
                for (int j = 0; j < columns; j++) {
                    const float *in = line + first_column[j], *w = column_weight + (size_t)along * j;
                    float sum = 0;
                    for (int t = 0; t < along; t++) sum += in[t] * w[t];
                    to[j] = sum;
                }
            }
            for (int j = 0; j < columns; j++) to[j] = rintf(to[j] * 0x1p-9f);
        }
        for (int i = 0; i < rows; i++) {
            float *to = x + (size_t)i * columns;
            const float *from[down];
            for (int t = 0; t < down; t++) from[t] = middle + (size_t)(first_row[i] + t) * columns;
            weigh(to, from, row_weight + (size_t)i * down, down, columns);
            for (int j = 0; j < columns; j++) to[j] = unit(to[j] * scale);
        }
    }
}

/* ------------------------------------------------------------------------------------------------ steps on pixels */

static void turn_hue(float *restrict r, float *restrict g, float *restrict b, int n, float turn) {
    const float third = 1.0 / 3, thirds = 2.0 / 3;
    for (int i = 0; i < n; i++) {
        float red = r[i], green = g[i], blue = b[i];
        float high = red > green ? red : green, low = red < green ? red : green;
        high = high > blue ? high : blue;
        low = low < blue ? low : blue;
        float range = high - low, sixth = range == 0 ? 1 : range * 6;
        float apart = high == red ? green - blue : high == green ? blue - red : red - green;
        float place = high == red ? 0 : high == green ? third : thirds;
        float hue = (apart / sixth + place) + turn;
        float at_r = hue, at_g = hue + thirds, at_b = hue + third;
        at_r = fabsf((at_r - truncf(at_r)) * 6 - 3) - 1;
        at_g = fabsf((at_g - truncf(at_g)) * 6 - 3) - 1;
        at_b = fabsf((at_b - truncf(at_b)) * 6 - 3) - 1;
        r[i] = unit(at_r) * range + low;
        g[i] = unit(at_g) * range + low;
        b[i] = unit(at_b) * range + low;
    }
}

/* One step on n pixels, in place; x[c * plane] is the first of channel c. `mean`: of the picture, for the contrast. */
static void pixels(int code, float value, float mean, float *restrict x, size_t plane, int channels, int n) {
    float *restrict r = x, *restrict g = x + plane, *restrict b = x + 2 * plane;
    float rest = 1 - value, grey = mean * rest;
    switch (code) {
    case BRIGHTNESS:
        for (int c = 0; c < channels; c++)
            for (int i = 0; i < n; i++) x[c * plane + i] = unit(x[c * plane + i] * value);
        break;
    case CONTRAST:
        for (int c = 0; c < channels; c++)
            for (int i = 0; i < n; i++) x[c * plane + i] = unit(x[c * plane + i] * value + grey);
        break;
    case SATURATION:
        for (int i = 0; i < n; i++) {
            float own = luma(r[i], g[i], b[i]) * rest;
            r[i] = unit(r[i] * value + own);
            g[i] = unit(g[i] * value + own);
            b[i] = unit(b[i] * value + own);
        }
        break;
    case HUE:
        turn_hue(r, g, b, n, value);
        break;
    case GRAYSCALE:
        for (int i = 0; i < n; i++) r[i] = g[i] = b[i] = luma(r[i], g[i], b[i]);
        break;
    case SOLARIZE:
        for (int c = 0; c < channels; c++)
            for (int i = 0; i < n; i++) x[c * plane + i] = x[c * plane + i] >= value ? 1 - x[c * plane + i] : x[c * plane + i];
        break;
    case INTENSITY:
        for (int c = 0; c < channels; c++)
            for (int i = 0; i < n; i++) x[c * plane + i] *= value;
        break;
    }
}

/* What the contrast takes the mean of, in whole 2**-16. */
static int64_t brightness_of(const float *restrict x, size_t plane, int channels, int n) {
    const float *restrict g = x + plane, *restrict b = x + 2 * plane;
    int32_t sum = 0;
    if (channels == 3) {
        for (int i = 0; i < n; i++) sum += (int32_t)rintf(luma(x[i], g[i], b[i]) * 65536);
        return sum;
    }
    int64_t total = 0;
    for (int c = 0; c < channels; c++, sum = 0) {
        for (int i = 0; i < n; i++) sum += (int32_t)rintf(x[c * plane + i] * 65536);
        total += sum;
    }
    return total;
}

/* ------------------------------------------------------------------------------------------ steps on whole pictures */

static int mirrored(int i, int size) {
    if (size == 1) return 0;
    i = abs(i) % (2 * size - 2);
    return i < 2 * size - 2 - i ? i : 2 * size - 2 - i;
}

/* (height, width) in place, by a kernel of 2 * radius + 1 whole numbers; `room`: the picture once more, and one line. */
static void blur(float *x, int height, int width, const float *kernel, int radius, float *room) {
    while (radius > 0 && kernel[0] == 0 && kernel[2 * radius] == 0) kernel++, radius--;
    float *line = room + (size_t)height * width;
    const int taps = 2 * radius + 1;
    const float *from[taps];
    for (int k = 0; k < taps; k++) from[k] = line + k;
    for (int i = 0; i < height; i++) {
        const float *in = x + (size_t)i * width;
        float *to = room + (size_t)i * width;
        for (int j = 0; j < width; j++) line[radius + j] = rintf(in[j] * 4096);
        for (int j = 1; j <= radius; j++) {
            line[radius - j] = line[radius + mirrored(-j, width)];
            line[radius + width - 1 + j] = line[radius + mirrored(width - 1 + j, width)];
        }
        weigh(to, from, kernel, taps, width);
        for (int j = 0; j < width; j++) to[j] = rintf(to[j] * 0x1p-12f);
    }
    for (int i = 0; i < height; i++) {
        float *to = x + (size_t)i * width;
        for (int k = 0; k < taps; k++) from[k] = room + (size_t)mirrored(i + k - radius, height) * width;
        weigh(to, from, kernel, taps, width);
        for (int j = 0; j < width; j++) to[j] *= 0x1p-24f;
    }
}

static void flip(float *x, int height, int width, int code, float *line) {
    if (code == MIRROR) {
        for (int i = 0; i < height; i++, x += width)
            for (int j = 0; j < width / 2; j++) {
                float kept = x[j];
                x[j] = x[width - 1 - j];
                x[width - 1 - j] = kept;
            }
        return;
    }
    for (int i = 0; i < height / 2; i++) {
        float *a = x + (size_t)i * width, *b = x + (size_t)(height - 1 - i) * width;
        memcpy(line, a, width * sizeof *a);
        memcpy(a, b, width * sizeof *a);
        memcpy(b, line, width * sizeof *a);
    }
}

/* ------------------------------------------------------------------------------------------------ the whole of it */

static int wanted(const struct step *s, int64_t sample) { return !s->on || s->on[sample]; }
static float value_of(const struct step *s, int64_t sample) { return s->count ? s->values[sample * s->count] : 0; }
static int on_whole(const struct step *s) { return s->code >= MIRROR; }

/* The steps of one sample, on x in 0..1; the normalised picture goes to `out`. */
static void steps(const struct program *p, int64_t sample, float *x, float *out, float *room) {
    int height = p->out_height, width = p->out_width, channels = p->channels, size = height * width;
    const struct step *chosen[p->steps + 1];
    int count = 0, at = 0, measured = 0;
    for (int k = 0; k < p->steps; k++)
        if (wanted(p->step + k, sample)) chosen[count++] = p->step + k;
    float mean = 0;
    for (;;) {
        /* as many steps on pixels as can be done without having seen the whole picture, block by block */
        int end = at;
        while (end < count && !on_whole(chosen[end]) && (chosen[end]->code != CONTRAST || (measured && end == at))) end++;
        int asked = end < count && chosen[end]->code == CONTRAST, last = end == count;
        int64_t brightness = 0;
        if (end > at || asked || last)
            for (int i = 0; i < size; i += BLOCK) {
                int n = size - i < BLOCK ? size - i : BLOCK;
                for (int k = at; k < end; k++)
                    pixels(chosen[k]->code, value_of(chosen[k], sample), mean, x + i, size, channels, n);
                if (asked) brightness += brightness_of(x + i, size, channels, n);
                for (int c = 0; last && c < channels; c++) {
                    const float shift = p->shift[c], factor = p->factor[c], *restrict from = x + c * (size_t)size + i;
                    float *restrict to = out + c * (size_t)size + i;
                    for (int j = 0; j < n; j++) to[j] = (from[j] + shift) * factor;
                }
            }
        if (last) return;
        at = end;
        measured = asked;
        if (asked) {
            mean = (float)((double)brightness / (65536.0 * size * (channels == 3 ? 1 : channels)));
            continue;
        }
        const struct step *s = chosen[at++];
        for (int c = 0; c < channels; c++) {
            if (s->code == BLUR)
                blur(x + c * (size_t)size, height, width, s->values + sample * s->count, s->count / 2, room);
            else
                flip(x + c * (size_t)size, height, width, s->code, room);
        }
    }
}

/* Floats of memory that a sample needs beside its picture. */
static size_t room_of(const struct program *p) {
    size_t rows = p->out_height, columns = p->out_width, most = 0;
    for (int k = 0; k < p->steps; k++)
        if (p->step[k].count > (int32_t)most) most = p->step[k].count;
    most += rows * columns + columns;
    if (p->radius) {
        size_t down = taps_of(p->height, rows, p->radius), along = taps_of(p->width, columns, p->radius);
        size_t other = (rows + columns) + rows * down + columns * along + p->width + (size_t)p->height * columns;
        most = other > most ? other : most;
    }
    return most;
}

/* raw: (samples, channels, height, width); out: (samples, channels, out_height, out_width). Samples begin <= i < end.
 * Returns 0, or 1 when there is no memory. */
int views(const struct program *p, const uint8_t *raw, float *out, int64_t begin, int64_t end) {
    size_t before = (size_t)p->channels * p->height * p->width;
    size_t after = (size_t)p->channels * p->out_height * p->out_width;
    float *x = malloc((after + room_of(p)) * sizeof *x), *room = x + after;
    if (!x) return 1;
    const float part = 1.0 / 255;
    for (int64_t i = begin; i < end; i++) {
        const uint8_t *from = raw + i * before;
        if (p->radius)
            crop_resize(p, p->region + 4 * i, p->flip && p->flip[i], from, x, room);
        else
            for (size_t j = 0; j < after; j++) x[j] = from[j] * part;
        steps(p, i, x, out + i * after, room);
    }
    free(x);
    return 0;
}
