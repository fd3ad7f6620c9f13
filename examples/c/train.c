/* A small language model in C: an embedding, a hidden layer and a softmax predict the next byte from the eight before.
 *
 *     ./train --steps=200 --seed=1
 *
 * It prints a line for each step, and knows nothing of any loop. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { VOCAB = 128, CONTEXT = 8, EMBED = 24, INPUT = CONTEXT * EMBED, HIDDEN = 128, BATCH = 64 };

static const float LEARNING_RATE = 0.5f, CLIP = 1.0f;

/* Parameters and their gradients have this layout. */
typedef struct {
    float embed[VOCAB][EMBED];
    float hidden[INPUT][HIDDEN];
    float hidden_bias[HIDDEN];
    float head[HIDDEN][VOCAB];
    float head_bias[VOCAB];
} Weights;

enum { COUNT = sizeof(Weights) / sizeof(float) };

static Weights weights, grads;
static unsigned char contexts[BATCH][CONTEXT], targets[BATCH];
static float input[BATCH][INPUT], hidden[BATCH][HIDDEN], logits[BATCH][VOCAB];
static float d_logits[BATCH][VOCAB], d_hidden[BATCH][HIDDEN], d_input[BATCH][INPUT];

/* xorshift64* (Vigna 2016). */
static uint64_t state;

static uint32_t draw(void) {
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return (uint32_t)((state * 0x2545F4914F6CDD1DULL) >> 32);
}

static float uniform(void) { return (float)draw() / 4294967296.0f * 2.0f - 1.0f; }

/* out[rows][columns] = in[rows][inner] x matrix[inner][columns] + bias. */
static void linear(float *out, const float *in, const float *matrix, const float *bias, int rows, int inner, int columns) {
    for (int row = 0; row < rows; row++) {
        float *to = out + row * columns;
        memcpy(to, bias, sizeof(float) * columns);
        for (int i = 0; i < inner; i++) {
            float value = in[row * inner + i];
            const float *from = matrix + i * columns;
            for (int column = 0; column < columns; column++) to[column] += value * from[column];
        }
    }
}

/* The gradients of `linear` with respect to its matrix, its bias and its input. */
static void linear_backward(float *d_matrix, float *d_bias, float *d_in, const float *d_out, const float *in,
                            const float *matrix, int rows, int inner, int columns) {
    for (int row = 0; row < rows; row++) {
        const float *d = d_out + row * columns;
        for (int column = 0; column < columns; column++) d_bias[column] += d[column];
        for (int i = 0; i < inner; i++) {
            float value = in[row * inner + i], sum = 0.0f;
            float *d_to = d_matrix + i * columns;
            const float *from = matrix + i * columns;
            for (int column = 0; column < columns; column++) {
                d_to[column] += value * d[column];
                sum += from[column] * d[column];
            }
            d_in[row * inner + i] = sum;
        }
    }
}

static double forward(void) {
    for (int row = 0; row < BATCH; row++)
        for (int at = 0; at < CONTEXT; at++)
            memcpy(input[row] + at * EMBED, weights.embed[contexts[row][at]], sizeof weights.embed[0]);
    linear(&hidden[0][0], &input[0][0], &weights.hidden[0][0], weights.hidden_bias, BATCH, INPUT, HIDDEN);
    for (int row = 0; row < BATCH; row++)
        for (int i = 0; i < HIDDEN; i++) hidden[row][i] = tanhf(hidden[row][i]);
    linear(&logits[0][0], &hidden[0][0], &weights.head[0][0], weights.head_bias, BATCH, HIDDEN, VOCAB);
    double loss = 0.0;
    for (int row = 0; row < BATCH; row++) {
        float most = logits[row][0], sum = 0.0f;
        for (int i = 1; i < VOCAB; i++) most = fmaxf(most, logits[row][i]);
        for (int i = 0; i < VOCAB; i++) sum += d_logits[row][i] = expf(logits[row][i] - most);
        for (int i = 0; i < VOCAB; i++) d_logits[row][i] /= sum * BATCH;
        loss -= logf(d_logits[row][targets[row]] * BATCH) / BATCH;
        d_logits[row][targets[row]] -= 1.0f / BATCH;
    }
    return loss;
}

static void backward(void) {
    memset(&grads, 0, sizeof grads);
    linear_backward(&grads.head[0][0], grads.head_bias, &d_hidden[0][0], &d_logits[0][0], &hidden[0][0],
                    &weights.head[0][0], BATCH, HIDDEN, VOCAB);
    for (int row = 0; row < BATCH; row++)
        for (int i = 0; i < HIDDEN; i++) d_hidden[row][i] *= 1.0f - hidden[row][i] * hidden[row][i];
    linear_backward(&grads.hidden[0][0], grads.hidden_bias, &d_input[0][0], &d_hidden[0][0], &input[0][0],
                    &weights.hidden[0][0], BATCH, INPUT, HIDDEN);
    for (int row = 0; row < BATCH; row++)
        for (int at = 0; at < CONTEXT; at++)
            for (int i = 0; i < EMBED; i++) grads.embed[contexts[row][at]][i] += d_input[row][at * EMBED + i];
}

/* Clips and applies the gradients; returns their norm before clipping. */
static double update(void) {
    float *weight = (float *)&weights;
    const float *grad = (const float *)&grads;
    double squares = 0.0;
    for (int i = 0; i < COUNT; i++) squares += (double)grad[i] * grad[i];
    double norm = sqrt(squares);
    float rate = LEARNING_RATE * (norm > CLIP ? (float)(CLIP / norm) : 1.0f);
    for (int i = 0; i < COUNT; i++) weight[i] -= rate * grad[i];
    return norm;
}

static double now_ms(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1e3 + time.tv_nsec / 1e6;
}

int main(int count, char **words) {
    unsigned long steps = 200;
    unsigned long long seed = 1;
    for (int i = 1; i < count; i++) {
        if (sscanf(words[i], "--steps=%lu", &steps) != 1 && sscanf(words[i], "--seed=%llu", &seed) != 1) {
            fprintf(stderr, "usage: train [--steps=N] [--seed=N]; found `%s`\n", words[i]);
            return 2;
        }
    }
    FILE *file = fopen("text.txt", "rb");
    static unsigned char text[1 << 20];
    size_t length = file ? fread(text, 1, sizeof text, file) : 0;
    if (length <= CONTEXT) {
        fprintf(stderr, "`text.txt` is missing or shorter than %d bytes\n", CONTEXT + 1);
        return 1;
    }
    state = (seed + 1) * 0x9E3779B97F4A7C15ULL;
    for (int i = 0; i < COUNT; i++) ((float *)&weights)[i] = 0.1f * uniform();
    printf("%d parameters, %zu bytes of text\n", COUNT, length);
    for (unsigned long step = 1; step <= steps; step++) {
        double begun = now_ms();
        for (int row = 0; row < BATCH; row++) {
            size_t from = draw() % (length - CONTEXT);
            for (int at = 0; at < CONTEXT; at++) contexts[row][at] = text[from + at] % VOCAB;
            targets[row] = text[from + CONTEXT] % VOCAB;
        }
        double loss = forward();
        backward();
        double norm = update();
        printf("step %lu/%lu | loss %.6f | norm %.4f | %.2f ms\n", step, steps, loss, norm, now_ms() - begun);
    }
    return 0;
}
