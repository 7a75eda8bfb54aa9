package verify

import (
	"context"
	"errors"
	"strconv"

	"caisson/verify/boot"
	"caisson/verify/measure"
)

// boot boots the image and compares what its TPM measured with what was
// predicted, event by event.
func (v *verification) boot(ctx context.Context) error {
	if v.disk.IsArchive() {
		v.check("boot", NotAsked, "it is an archive, which no machine boots")
		return nil
	}
	if v.Boot == nil {
		v.check("boot", NotAsked, "the image was not booted; --boot does")
		return nil
	}
	if v.measured == nil {
		v.check("boot", NotChecked, "nothing was predicted that could be confirmed")
		return nil
	}
	v.say("booting the image")
	o := *v.Boot
	o.Disk, o.Format = v.Image, v.disk.Format
	predicted := v.measured
	if o.Secure != nil {
		var err error
		if predicted, err = measure.DiskOn(*o.Secure, v.disk, v.disk.Size); err != nil {
			v.check("boot", Failed, "with Secure Boot: %v", err)
			return nil
		}
	}
	o.Resets = predicted.Resets
	r, err := boot.Run(ctx, o)
	if ctx.Err() != nil {
		return err
	}
	var missing *boot.MissingError
	if errors.As(err, &missing) {
		v.check("boot", NotChecked, "%v", err)
		return nil
	}
	if err != nil {
		v.check("boot", Failed, "%v", err)
		return nil
	}
	v.report.Measured = map[string]string{}
	for pcr, value := range r.PCRs {
		v.report.Measured[strconv.Itoa(pcr)] = value
	}
	wrong := append(measure.Compare(predicted, r.Takeover), measure.Compare(predicted.AtLogin(v.phases), r.Login)...)
	if len(wrong) > 0 {
		v.check("boot", Failed, "%d events were measured otherwise than predicted; the first: %s", len(wrong), wrong[0])
		return nil
	}
	v.check("boot", Passed, "booted in %.0f s; PCR 3, 4, 5, 7, 9 and 11 to 14 are as predicted, event by event", r.Time.Seconds())
	return nil
}
