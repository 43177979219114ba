"""Operations with a fast path, each beside a plain reference."""
