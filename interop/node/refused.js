// Why a request is refused: the status, the error code (RFC 6750 section 3.1, RFC 9449 section 7.1), and words.
export class Refused extends Error {
  constructor(status, error, description) {
    super(description);
    this.status = status;
    this.error = error;
  }
}
