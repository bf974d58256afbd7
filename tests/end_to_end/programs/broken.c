int main(void) { return forgotten; }
