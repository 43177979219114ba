"""Operations with a fast path. Each stands beside its plain reference."""
