/** A worker that ends as soon as it begins. */
throw new Error('it cannot begin');
